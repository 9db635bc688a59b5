"""What is said of a slip below `models:`: file, line, key and remedy, at every depth."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferbus_client.errors import SettingsError
from inferbus_worker.config_check import describe, remarks
from inferbus_worker.settings.worker import Settings
from support.inferbus import inferbus

_BACKENDS = "'vllm', 'ollama', 'llama.cpp', 'tabbyapi', 'mlx', 'tgi', 'openai' or 'anthropic'"
_URL = "must be an address such as http://127.0.0.1:8000, with http:// or https://"
_VARIABLE = "must be the name of an environment variable, such as OPENAI_API_KEY, not the key itself"
_PORT = "the server gets a port of its own: {port} has to stand in command or environment"
_AT_ONCE = "must be a whole number from 1 to 4096, or auto"


@pytest.mark.parametrize(
    ("phi", "said"),
    [
        ("{backnd: ollama}", "there is no setting models.phi.backnd; is backend meant?"),
        ("{backend: olama}", f"models.phi.backend: must be {_BACKENDS}"),
        ("{slots: [{backnd: ollama}]}", "there is no setting models.phi.slots.0.backnd; is backend meant?"),
        ("{slots: [{backend: vllm}, {backend: x}]}", f"models.phi.slots.1.backend: must be {_BACKENDS}"),
        ("{slots: []}", "models.phi.slots: must not be empty"),
        ("{slots: 3, backend: vllm}", "models.phi.slots: must be a list"),
        ("{slots: {mn: 2}, backend: vllm}", "there is no setting models.phi.slots.mn; is min meant?"),
        ("{slots: {min: 2}, backend: vllm}", "models.phi.slots: min must be max or less"),
        ("{backend: vllm, manage: {comand: [x]}}", "there is no setting models.phi.manage.comand; is command meant?"),
        ("{backend: vllm, manage: {command: x}}", "models.phi.manage.command: must be a list"),
        ("{backend: vllm, manage: {command: [x, '{prot}']}}", f"models.phi.manage: {_PORT}"),
        ("{backend: vllm, url: 'localhost:8000'}", f"models.phi.url: {_URL}"),
        ("{slots: [{backend: vllm, url: 'ftp://u:secret@h'}]}", f"models.phi.slots.0.url: {_URL}"),
        ("{backend: vllm, concurrency: many}", f"models.phi.concurrency: {_AT_ONCE}"),
        ("{slots: [{backend: vllm, concurrency: 0}]}", f"models.phi.slots.0.concurrency: {_AT_ONCE}"),
        ("{backend: openai, api_key: sk-1}", "there is no setting models.phi.api_key; is api_key_env meant?"),
        ("{backend: openai, api_key_env: sk-1}", f"models.phi.api_key_env: {_VARIABLE}"),
        ("{slots: [{backend: openai, api_key_env: sk-1}]}", f"models.phi.slots.0.api_key_env: {_VARIABLE}"),
        ("{engine: simulated, capacty: 4}", "there is no setting models.phi.capacty; is capacity meant?"),
    ],
)
def test_a_slip_is_named_with_its_line_and_what_would_do(phi: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "inferbus.yaml"
    file.write_text(f"models:\n  phi: {phi}\n")
    with pytest.raises(SettingsError) as raised:
        Settings.load(file=file)
    assert str(raised.value) == f"{file}, line 2: {said}"


def test_a_concurrency_is_a_number_or_auto_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load({"concurrency": "4"}).concurrency == 4
    assert Settings.load({"concurrency": "auto"}).concurrency == "auto"
    monkeypatch.setenv("INFERBUS_CONCURRENCY", "many")
    with pytest.raises(SettingsError, match=f"^INFERBUS_CONCURRENCY: {_AT_ONCE}$"):
        Settings.load()


def test_a_model_s_file_that_is_not_there_is_told_by_check_config(tmp_path: Path) -> None:
    there = tmp_path / "there.gguf"
    there.touch()
    models = {
        "phi": {"backend": "llama.cpp", "path": f"{tmp_path}/none.gguf", "slots": {"max": 3}},
        "qwen": {"backend": "llama.cpp", "path": str(there)},
        "hub": {"backend": "vllm", "path": "Qwen/Qwen3-4B"},
    }
    settings = Settings.load({"models": models, "projects": {"general": {"model": "phi", "models": ["qwen", "hub"]}}})
    assert remarks(settings) == [f"models.phi: there is nothing at {tmp_path}/none.gguf, its path"]


def test_a_key_that_is_not_there_is_said_with_the_place_of_its_model(tmp_path: Path) -> None:
    file = tmp_path / "inferbus.yaml"
    file.write_text(
        "models:\n  qwen: {backend: vllm}\n  gpt: {backend: openai, api_key_env: NOBODYS_KEY}\n"
        "projects: {general: {model: qwen}}\n"
    )
    checked = inferbus("serve", "--config", str(file), "--check-config")
    assert checked.returncode == 2
    assert checked.stderr == (
        f"inferbus: {file}, line 3: gpt/openai: api_key_env names NOBODYS_KEY, which is not set in the environment; "
        "set it\n"
    )


def test_what_is_secret_of_a_slot_prints_as_stars() -> None:
    manage = {"command": ["serve", "{port}"], "environment": {"HF_TOKEN": "hush", "THREADS": "4"}}
    models = {
        "a": {"backend": "vllm", "url": "http://someone:hush@gpu:8000/v1?key=hush"},
        "b": {"backend": "llama.cpp", "manage": manage},
        "c": {"backend": "vllm", "url": "http://gpu:8000"},
    }
    settings = Settings.load({"models": models, "projects": {"general": {"model": "a", "models": ["b", "c"]}}})
    said = describe(settings, {}, [])
    assert "hush" not in said
    assert "url: http://**********@gpu:8000/v1?**********\n" in said
    assert "url: http://gpu:8000\n" in said
    assert "THREADS: '4'\n" in said
    assert settings.models["a"].url == "http://someone:hush@gpu:8000/v1?key=hush"
    one = Settings.load({"backend": "vllm", "url": "http://someone:hush@gpu:8000"})
    assert "hush" not in describe(one, {}, [])
