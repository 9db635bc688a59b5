"""vLLM's options in the configuration file become those of its command line."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from inferbus_client.errors import SettingsError
from inferbus_worker.config_check import describe, remarks
from inferbus_worker.engines.factory import make_engine
from inferbus_worker.engines.vllm.engine import VllmEngine
from inferbus_worker.settings.vllm_options import arguments
from inferbus_worker.settings.worker import Settings
from support.inferbus import PROGRAM, environment


def loaded(tmp_path: Path, text: str, **flags: Any) -> Settings:
    file = tmp_path / "inferbus.yaml"
    file.write_text(text)
    return Settings.load(flags, file)


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("max_model_len: 8192", ["--max-model-len=8192"]),
        ("max-model-len: 8k", ["--max-model-len=8k"]),
        ("gpu_memory_utilization: 0.90", ["--gpu-memory-utilization=0.90"]),
        ("enforce_eager: true", ["--enforce-eager"]),
        ("enable_prefix_caching: False", ["--no-enable-prefix-caching"]),
        ("served_model_name: [mine, 'two words']", ["--served-model-name", "mine", "two words"]),
        (
            "speculative_config: {tokens: 5, nested: {on: true, off: [1, x]}}",
            ['--speculative-config={"tokens": 5, "nested": {"on": true, "off": [1, "x"]}}'],
        ),
        ("structured_outputs_config.backend: xgrammar", ["--structured-outputs-config.backend=xgrammar"]),
        ("chat_template: -- dashes", ["--chat-template=-- dashes"]),
        ("a: 1\n  b: 2", ["--a=1", "--b=2"]),
    ],
)
def test_each_kind_of_value_is_written_as_vllm_reads_it(tmp_path: Path, yaml: str, words: list[str]) -> None:
    assert arguments(loaded(tmp_path, f"vllm:\n  {yaml}\n").vllm) == words


@pytest.mark.parametrize(
    ("yaml", "complaint"),
    [
        ("vllm:\n  max model len: 3", "line 1: vllm: 'max model len' cannot be the name of an option"),
        ("vllm:\n  --max-model-len: 3", "'--max-model-len' cannot be the name of an option"),
        ("vllm:\n  max_model_len:", "line 1: vllm: max_model_len has no value"),
        ("vllm:\n  served_model_name: []", "served_model_name has no value"),
        ("vllm: 8192", "line 1: vllm: "),
        ("vllm: [max_model_len]", "line 1: vllm: "),
    ],
)
def test_what_cannot_be_an_option_is_refused_with_its_place(tmp_path: Path, yaml: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        loaded(tmp_path, yaml)


def test_the_command_line_comes_last_and_so_wins(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "vllm: {max_model_len: 8192, dtype: auto}")
    engine = make_engine(settings, "demo", ["--max-model-len", "128"])
    assert isinstance(engine, VllmEngine)
    assert engine._options == ("--max-model-len=8192", "--dtype=auto", "--max-model-len", "128")


def test_there_is_neither_a_flag_nor_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`INFERBUS_VLLM` says to the scripts which vLLM to install."""
    for value in ("cpu", '{"max_model_len": 1}'):
        monkeypatch.setenv("INFERBUS_VLLM", value)
        assert loaded(tmp_path, "vllm: {dtype: auto}").vllm == {"dtype": "auto"}
        assert Settings.load({}).vllm == {}
        assert remarks(Settings.load({})) == []
    run = subprocess.run(
        [PROGRAM, "serve", "--help"], capture_output=True, text=True, env=environment(), check=True, timeout=60
    )
    assert "--vllm" not in run.stdout


def test_the_settings_in_force_show_them_but_for_secrets(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "vllm: {hf_token: hunter2, api-key: [hunter2], max_num_batched_tokens: 4096}")
    shown = describe(settings, {}, [])
    assert "hunter2" not in shown + str(settings.masked())
    assert "hf_token: '**********'" in shown
    assert "max_num_batched_tokens: '4096'" in shown


def test_beside_another_engine_they_have_no_effect_and_that_is_said(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "engine: simulated\nvllm: {dtype: auto}")
    assert "vllm in the file has no effect without --engine vllm" in remarks(settings)
