"""What is said of a slip below `models:`: file, line, key and remedy, at every depth."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferbus_client.errors import SettingsError
from inferbus_worker.config_check import describe, remarks
from inferbus_worker.settings.masking import masked
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
        "here": {"backend": "llama.cpp", "path": "nowhere/none.gguf"},
    }
    settings = Settings.load({"models": models, "projects": {"general": {"model": "phi", "models": [*models]}}})
    assert remarks(settings) == [
        f"models.phi: there is nothing at {tmp_path}/none.gguf, its path",
        f"models.here: there is nothing at nowhere/none.gguf, its path, as seen from {Path.cwd()}",
    ]


def test_a_key_that_is_not_there_is_said_with_the_place_of_its_model(tmp_path: Path) -> None:
    file = tmp_path / "inferbus.yaml"
    file.write_text(
        "models:\n  qwen: {backend: vllm}\n  gpt: {backend: openai, api_key_env: NOBODYS_KEY}\n"
        "projects: {general: {model: qwen, models: [gpt]}}\n"
    )
    checked = inferbus("serve", "--config", str(file), "--check-config")
    assert checked.returncode == 2
    assert checked.stderr == (
        f"inferbus: {file}, line 3: gpt/openai: api_key_env names NOBODYS_KEY, which is not set in the environment; "
        "set it\n"
    )


COMMANDS = [
    ["serve", "--port", "{port}", "--api-key", "hush", "--quiet"],
    ["serve", "--port", "{port}", "--api-key=hush"],
    ["sh", "-c", "exec serve --port {port} --hf-token 'hush' --quiet"],
    ["env", "HF_TOKEN=hush", "serve", "--port={port}"],
    ["serve", "--port", "{port}", "--header", "Authorization: Bearer hush"],
    ["serve", "--port", "{port}", "--header", "Authorization: Api-Key hush"],
    ["serve", "--port", "{port}", "--header=Authorization: Token hush"],
    ["serve", "--port", "{port}", "--proxy", "http://someone:hush@proxy:3128/x"],
    ["serve", "--port", "{port}", "--proxy", "http://someone:word@hush@proxy:3128/x"],
    ["serve", "--api-key", "hush", "hush", "--port", "{port}"],
    ["serve", "--api-keys", "hush", "--port", "{port}"],
    ["env", "OPENAI_API_KEY_2=hush", "serve", "--port={port}"],
    ["serve", "--port", "{port}", "--override", '{"api_keys": ["hush"]}'],
    ["serve", "--port", "{port}", "--override", '{"deep": {"client_secret": "hush"}, "max_tokens": 5}'],
]
OPTIONS: list[dict[str, Any]] = [
    {"hf_token": "hush"},
    {"api_keys": ["hush"]},
    {"client_secret_1": "hush"},
    {"extra_headers": {"Authorization": "Bearer hush", "Accept": "all"}},
    {"store": [{"name": "a", "login": {"password": "hush"}}]},
    {"credentials": {"user": "hush", "word": "hush"}},
    {"store_url": "redis://someone:hush@h/0"},
    {"hf_overrides": '{"api_key": "hush"}'},
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[-1])
def test_a_secret_in_a_command_prints_as_stars_wherever_it_stands(command: list[str]) -> None:
    one = {"backend": "llama.cpp", "manage": {"command": command, "environment": {"A": command[-1]}}}
    settings = Settings.load({"models": {"a": one}})
    said = describe(settings, {}, command)
    assert "hush" not in said
    assert "port" in said
    assert "hush" not in repr(settings)
    assert settings.models["a"].manage is not None
    assert settings.models["a"].manage.command == command, "the server gets it"


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_a_secret_in_options_prints_as_stars_at_any_depth(options: dict[str, Any]) -> None:
    for said in ({"models": {"a": {"backend": "ollama", "options": options}}}, {"vllm": options}):
        settings = Settings.load(said)
        assert "hush" not in describe(settings, {}, [])
        assert settings.vllm == options or settings.models["a"].options == options


def test_what_is_no_secret_prints_as_it_is() -> None:
    words = [
        "serve",
        "--port={port}",
        "--max-num-tokens",
        "5",
        "--key-file",
        "k.pem",
        "--tokenizer",
        "auto",
        "tokens: 5",
    ]
    one = {"backend": "llama.cpp", "manage": {"command": words}, "options": {"keep_alive": "5m", "stop_tokens": ["a"]}}
    said = describe(Settings.load({"models": {"a": one}}), {}, words)
    assert "**" not in said
    assert describe(Settings.load({"models": {"a": one}}), {}, []).count("k.pem") == 1


def test_long_words_are_looked_through_in_linear_time() -> None:
    began = time.monotonic()
    masked(["token" * 100_000, "-" * 500_000, "key " * 100_000, "://" * 100_000, "a.b-" * 100_000])
    masked(["key:" + " " * 100_000, "key: [" + " " * 100_000, "authorization: a" + " " * 100_000, "key_1" * 100_000])
    assert time.monotonic() - began < 10


def test_nothing_of_the_file_is_obeyed_by_the_terminal(tmp_path: Path) -> None:
    evil = "/none/\x1b[31mred\x9b2J\u202e\nforged"
    file = tmp_path / "inferbus.yaml"
    texts: list[dict[str, Any]] = [
        {"models": {"a": {"backend": "llama.cpp", "path": evil}}},
        {"models": {"a": {"backend": "llama.cpp", "path": evil, evil: 1}}},
        {"models": {evil: {"backend": "vllm"}}},
        {"models": {"a": {"backend": "vllm", "api_key_file": evil}}},
        {"projects": {"general": {"model": evil}}, "models": {"a": {"backend": "vllm"}}},
        {evil: 1},
    ]
    for text in texts:
        file.write_text(yaml.safe_dump(text))
        for more in ((), (evil.replace("\n", " "),)):
            checked = inferbus("serve", *more, "--config", str(file), "--check-config")
            said = checked.stdout + checked.stderr
            assert not {"\x1b", "\x9b", "\u202e"} & set(said), text
            assert not [line for line in checked.stderr.splitlines() if line.startswith("forged")], text


@pytest.mark.parametrize(
    ("slot", "words"),
    [
        ({"backend": "vllm", "ulr": "http://h"}, "there is no setting models.a.ulr; is url meant?"),
        ({"backend": "vllm", "Url": "http://h"}, "there is no setting models.a.Url; is url meant?"),
        ({"slots": [{"backend": "vllm", "ulr": "x"}]}, "models.a.slots.0.ulr; is url meant?"),
        ({"backend": "vllm", "manage": {"comand": ["x"]}}, "models.a.manage.comand; is command meant?"),
        ({"backend": "vllm", "api-key-env": "X"}, "models.a.api-key-env; is api_key_env meant?"),
        ({"engine": "vllm", "max_model_len": 5}, "besides stands below options:"),
        ({"slots": [{"backend": "ollama", "num_ctx": 5}]}, "besides stands below options:"),
    ],
)
def test_a_slip_in_a_key_is_told_what_was_meant(slot: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.load({"models": {"a": slot}})
    assert words in str(refused.value)


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
