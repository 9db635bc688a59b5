"""What `scripts/bench` can be asked for, and what it refuses before it measures for an hour."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import command_line, document, engine


def test_every_suite_that_can_be_asked_for_can_be_measured() -> None:
    assert command_line.read([]).suites == [*program._ALONE, *engine.WAYS]


def test_what_follows_two_dashes_is_vllms() -> None:
    wishes = command_line.read(["--only", "engine", "--", "--dtype", "float32"])
    assert (wishes.suites, wishes.plan.engine_options) == (["engine"], ("--dtype", "float32"))


def test_a_short_run_is_written_where_it_is_told_to_and_nowhere_else(tmp_path: Path) -> None:
    """One to see whether it works put its figures into docs/benchmarks.md."""
    out = tmp_path / "b.md"
    assert command_line.read(["--quick"]).out is None
    assert command_line.read(["--quick", "--out", str(out)]).out == out
    assert command_line.read([]).out == Path(command_line.__file__).parents[2] / "docs" / "benchmarks.md"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("bus", "unrecognized arguments: bus"),
        ("--only buss", "invalid choice: 'buss'"),
        ("--rounds many", "must be a whole number, at least 1"),
        ("--rounds 0", "must be a whole number, at least 1"),
        ("--sessions 1,,2", "must be whole numbers, at least 1, with commas between"),
        ("--sessions 5 --only startup", "--sessions is for the suites engine and streaming alone"),
        ("--only startup -- --dtype float32", "what follows -- is for the suites engine and streaming alone"),
        ("--only bus --only engine --gpu", "--gpu measures the suites engine and streaming alone"),
        ("--compare=", "--compare needs a commit"),
        ("--compare HEAD --only bus", "takes --rounds and --quick alone, not --only"),
        ("--out /", "cannot be the document"),
        ("--out x.json", "cannot be the document"),
        ("--out /no/such/x.md", "there is no folder /no/such"),
        ("--compare no-such-commit", "this checkout does not have the commit no-such-commit"),
    ],
)
def test_what_cannot_be_meant_is_said_at_once(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.read(words.split())
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--help"], 0, "usage: scripts/bench"),
        (["--only", "bus", "-h"], 0, "suites, and"),
        (["--rouds", "3"], 2, "--rouds"),
    ],
)
def test_help_and_typos_are_answered_before_anything_is_installed(
    words: list[str], status: int, says: str, tmp_path: Path
) -> None:
    scripts = tmp_path / "fresh" / "scripts"
    shutil.copytree(Path(command_line.__file__).parents[1], scripts)
    environment = {**os.environ, "INFERBUS_PYTHON": sys.executable}
    asked = subprocess.run([scripts / "bench", *words], capture_output=True, text=True, env=environment, check=False)
    assert (asked.returncode, [path.name for path in scripts.parent.iterdir()]) == (status, ["scripts"])
    assert says in asked.stdout + asked.stderr


def test_the_gpus_suites_need_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command_line, "gpu", lambda: None)
    with pytest.raises(SystemExit):
        command_line.read(["--gpu"])
    assert "no GPU answers here" in capsys.readouterr().err
    monkeypatch.setattr(command_line, "gpu", lambda: "one")
    wishes = command_line.read(["--gpu"])
    assert (wishes.suites, wishes.plan.shape, wishes.plan.levels[0]) == (["engine", "streaming"], "1b", 64)


def test_a_document_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    document.check(tmp_path / "bench.md")
    (tmp_path / "file").touch()
    with pytest.raises(document.DocumentError, match="cannot be written: "):
        document.check(tmp_path / "file" / "bench.md")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(document.DocumentError, match=r"bad\.json is not what an earlier run has written"):
        document.check(tmp_path / "bad.md")


def test_each_suite_says_what_takes_it_again() -> None:
    plan = command_line.read(["--rounds", "3", "--sessions", "1,64", "--", "--max-model-len", "512"]).plan
    assert plan.command("bus") == "scripts/bench --only bus --rounds 3"
    again = "scripts/bench --only engine --only streaming --rounds 3 --sessions 1,64 -- --max-model-len 512"
    assert plan.command("engine", "streaming") == again
    assert command_line.read(again.split()[1:]).plan == plan


def test_what_is_written_by_hand_stays_where_it_is(tmp_path: Path) -> None:
    out = tmp_path / "b.md"
    document.write(out, [], {})
    once = out.read_text()
    assert [line for line in once.splitlines() if line.startswith("## ")] == [
        *("## In short", "## Why goals are missed", "## What was tried"),
    ]
    out.write_text(once.replace("## In short\n", "## In short\n\nFast.\n"))
    document.write(out, [], {})
    assert out.read_text() == once.replace("## In short\n", "## In short\n\nFast.\n")
