"""`inferbus estimate` as people type it, wrongly too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.inferbus import inferbus
from support.model_folders import GROUPED, write_model
from support.terminal import in_terminal


def test_it_prints_a_table_and_says_that_it_is_an_estimate() -> None:
    said = inferbus("estimate", "demo", "--dtype", "bfloat16", "--concurrency", "4", "--memory", "8GiB")
    assert said.returncode == 0, said.stderr
    for words in ("weights", "3.94 MiB", "KV cache per token", "3.00 KiB", "of 2048 tokens", "KV cache of 4 at once"):
        assert words in said.stdout
    assert "In 8.00 GiB:" in said.stdout
    assert said.stdout.endswith("Estimated; the engine will say what it really took at the start.\n")


def test_as_json_it_has_the_same_in_bytes() -> None:
    said = inferbus("estimate", "demo", "--dtype", "bfloat16", "--json", "--memory", "8GiB", "--max-model-len", "1e3")
    found = json.loads(said.stdout)
    assert found["kv_bytes_per_token"] == 3072
    assert found["kv_bytes_per_request"] == 3_072_000
    assert found["terms"]["concurrency"] == 8
    assert found["fits"] is True


def test_what_could_never_fit_fails_in_words(tmp_path: Path) -> None:
    said = inferbus("estimate", str(write_model(tmp_path / "m", GROUPED)), "--memory", "100 MB")
    assert said.returncode == 1
    assert "It can never fit into 95.37 MiB: its weights and one such request take" in said.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument 'MODEL'"),
        (["/no/such/folder"], "There is no folder or file /no/such/folder."),
        (["nothing.gguf"], "There is no folder or file nothing.gguf."),
        (["nobody/nothing.gguf"], "There is no folder or file nobody/nothing.gguf."),
        (["nobody/nothing"], "download it first, or name a folder"),
        (["{folder}"], "it has no config.json"),
        (["{folder}/note.txt"], "is a file, and no .gguf"),
        (["demo", "--memory", "lots"], "'lots' is no size such as 24 GiB"),
        (["demo", "--memory", "0"], "is no size"),
        (["demo", "--concurrency", "0"], "0 is not in the range"),
        (["demo", "--concurrency", "many"], "not a valid integer"),
        (["demo", "--kv-cache-dtype", "fp9"], "'fp9' is not one of"),
        (["demo", "--quantization", "awq"], "these files are not quantized"),
        (["demo", "--gpu-memory-utilization", "0.5"], "No such option"),
        (["demo", "demo"], "unexpected extra argument"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(arguments: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no model")
    said = inferbus("estimate", *(each.format(folder=tmp_path) for each in arguments))
    assert said.returncode == 2
    assert words in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("columns", [30, 40, 45])
def test_a_narrow_terminal_parts_no_figure_from_its_unit_and_indents_what_it_folds(columns: int) -> None:
    lines = in_terminal("estimate", "demo", "--memory", "1GiB", columns=columns).text.splitlines()
    assert max(map(len, lines)) <= columns
    assert not [line for line in lines if line.strip() in {"MiB", "KiB"}]
    flush = [line.split()[0] for line in lines if line[:1].strip()]
    assert flush == ["demo:", "In", "Estimated;"]
    rows = lines[1 : next(number for number, line in enumerate(lines) if line.startswith("In"))]
    begins = [line.split()[0] for line in rows if line.startswith("  ") and line[2].strip()]
    assert begins == ["weights:", "KV", "KV", "KV", "overhead", "sum:"]
