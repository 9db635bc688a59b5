"""How each backend's server is started."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from inferbus_worker.engines.base import EngineStartError
from inferbus_worker.engines.factory import make_lineup
from inferbus_worker.engines.managed.commands import as_asked, command_for, concurrency_of
from inferbus_worker.engines.managed.engine import ManagedEngine
from inferbus_worker.engines.remote.backends import BACKENDS as ROWS
from inferbus_worker.engines.remote.place import RemotePlace
from inferbus_worker.settings.models import BACKENDS, SlotSettings
from inferbus_worker.settings.worker import Settings
from support.tiny_engine import TinyEngine

#: Where each backend takes how many requests it is to run at once.
CONCURRENCY = {
    "vllm": "--max-num-seqs 3",
    "llama.cpp": "--parallel 3",
    "mlx": "--decode-concurrency 3",
    "ollama": "OLLAMA_NUM_PARALLEL=3",
    "tabbyapi": "--max-batch-size 3",
    "tgi": "--max-concurrent-requests 3",
}
MANAGED = [backend for backend, row in ROWS.items() if row.managed is not None]


@pytest.fixture
def everything_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    (tmp_path / "main.py").touch()
    monkeypatch.setenv("TABBYAPI_HOME", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda program, **_: f"/usr/bin/{program}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    return tmp_path


def slot(backend: str, **fields: Any) -> SlotSettings:
    place = {"model": "m"} | fields if backend == "ollama" else {"path": "/models/m", **fields}
    return SlotSettings.model_validate({"backend": backend, "manage": {}, **place})


def whole(settings: SlotSettings) -> str:
    """Words and variables of its command, in one text."""
    command = command_for(settings, "phi", 4711)
    return " ".join([*command.words, *(f"{name}={value}" for name, value in command.environment.items()), ""])


@pytest.mark.usefixtures("everything_installed")
@pytest.mark.parametrize("backend", MANAGED)
def test_each_backend_takes_port_and_concurrency_in_its_own_way(backend: str) -> None:
    text = whole(slot(backend, concurrency=3))
    assert f"{CONCURRENCY[backend]} " in text
    assert "4711" in text
    assert "127.0.0.1" in text
    assert "{" not in text


def test_every_backend_has_a_row_and_those_with_a_server_of_their_own_say_how_it_is_started() -> None:
    assert set(ROWS) == set(BACKENDS)
    assert set(MANAGED) == set(BACKENDS) - {"openai", "anthropic"} == set(CONCURRENCY)


@pytest.mark.usefixtures("everything_installed")
@pytest.mark.parametrize(
    ("backend", "said", "expected"),
    [("vllm", None, 256), ("ollama", "auto", 4), ("mlx", "auto", 1), ("llama.cpp", None, 1), ("vllm", 2, 2)],
)
def test_what_is_not_said_is_the_natural_concurrency(backend: str, said: int | str | None, expected: int) -> None:
    assert concurrency_of(slot(backend, concurrency=said)) == expected


@pytest.mark.usefixtures("everything_installed")
def test_options_become_flags_of_vllm_and_of_no_other() -> None:
    options = {"gpu_memory_utilization": 0.5, "enforce_eager": True}
    words = command_for(slot("vllm", options=options), "phi", 1).words
    assert words[-2:] == ("--gpu-memory-utilization=0.5", "--enforce-eager"), "after ours, which they may replace"
    assert "memory" not in whole(slot("llama.cpp", options=options))


@pytest.mark.usefixtures("everything_installed")
def test_what_was_a_flag_goes_into_no_request() -> None:
    options = {"gpu_memory_utilization": 0.5}
    assert as_asked(slot("vllm", options=options), "phi").options == {}
    assert as_asked(slot("llama.cpp", options={"cache_prompt": True}), "phi").options == {"cache_prompt": True}


@pytest.mark.usefixtures("everything_installed")
def test_the_worker_asks_a_server_of_its_own_so(monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[RemotePlace] = []

    def make(place: RemotePlace, _loop: object, _remarks: object) -> TinyEngine:
        places.append(place)
        return TinyEngine("")

    monkeypatch.setattr("inferbus_worker.engines.remote.engine.RemoteEngine", make)
    models = {
        "phi": {"backend": "mlx", "path": "/models/m", "model": "mine"},
        "big": {"backend": "vllm", "path": "/models/m", "options": {"dtype": "float32"}},
    }
    projects = {"general": {"model": "phi", "models": ["big"]}}
    lineup = make_lineup(Settings.load({"models": models, "projects": projects}), None, [])
    for name in models:
        engine = lineup.models[name].slots[0].engine
        assert isinstance(engine, ManagedEngine)
        engine._make("http://127.0.0.1:4711")
    assert [(place.model, dict(place.options)) for place in places] == [("default_model", {}), ("big", {})]


@pytest.mark.usefixtures("everything_installed")
def test_the_context_of_llama_cpp_is_shared_by_its_slots() -> None:
    assert "--ctx-size 8192 " in whole(slot("llama.cpp", context=2048, concurrency=4))
    assert "--max-model-len 2048 " in whole(slot("vllm", context=2048, concurrency=4))
    assert "--ctx-size" not in whole(slot("llama.cpp"))


@pytest.mark.usefixtures("everything_installed")
def test_requests_call_the_model_as_its_server_does() -> None:
    names = {backend: as_asked(slot(backend), "phi").model for backend in MANAGED}
    assert names == {
        "vllm": "phi",
        "llama.cpp": "phi",
        "mlx": "default_model",
        "ollama": "m",
        "tabbyapi": "m",
        "tgi": "phi",
    }
    assert "--served-model-name phi " in whole(slot("vllm"))
    assert as_asked(SlotSettings(backend="ollama", path="phi3:3.8b"), "phi").model == "phi3:3.8b"
    own = SlotSettings(backend="mlx", model="theirs", manage={"command": ["mine", "{port}"]})
    assert as_asked(own, "phi").model == "theirs"


@pytest.mark.usefixtures("everything_installed")
def test_tabbyapi_asks_for_a_key_only_where_there_is_one() -> None:
    assert "--disable-auth True" in whole(slot("tabbyapi"))
    assert "--disable-auth" not in whole(slot("tabbyapi", api_key_env="KEY"))


def test_places_are_filled_once_and_nothing_else_is_read() -> None:
    manage = {
        "command": [sys.executable, "{path}", '{"port": {port}}', "{concurrency}{nobody}", "$HOME", "{{model}"],
        "environment": {"WHERE": "{model}:{port}"},
    }
    settings = SlotSettings.model_validate({"backend": "vllm", "path": "/a{port}", "manage": manage, "concurrency": 2})
    command = command_for(settings, "phi", 4711)
    assert command.words[1:] == ("/a{port}", '{"port": 4711}', "2{nobody}", "$HOME", "{phi")
    assert command.environment == {"WHERE": "phi:4711"}


@pytest.mark.parametrize(
    ("backend", "remedy"),
    [
        ("llama.cpp", "There is no llama-server here to start phi with: install llama.cpp"),
        ("mlx", "There is no mlx_lm here to start phi with: install it: pip install mlx-lm"),
        ("ollama", "There is no ollama here to start phi with: install Ollama"),
        ("tabbyapi", "There is no folder in TABBYAPI_HOME here to start phi with: check TabbyAPI out"),
        ("tgi", "There is no text-generation-launcher here to start phi with: install text-generation-inference"),
        ("vllm", "There is no vllm here to start phi with: install vLLM: pip install"),
    ],
)
def test_a_program_that_is_missing_is_named_with_the_remedy(
    backend: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.delenv("TABBYAPI_HOME", raising=False)
    with pytest.raises(EngineStartError) as raised:
        whole(slot(backend))
    assert str(raised.value).startswith(remedy)


def test_a_command_of_the_operators_that_is_missing_is_named() -> None:
    settings = SlotSettings.model_validate({"backend": "vllm", "manage": {"command": ["no-such-program", "{port}"]}})
    with pytest.raises(EngineStartError, match=r"no program 'no-such-program' to start phi with: see manage\.command"):
        command_for(settings, "phi", 1)


@pytest.mark.usefixtures("everything_installed")
def test_a_path_that_is_needed_and_not_said_is_asked_for() -> None:
    with pytest.raises(EngineStartError, match="needs a path to its model"):
        command_for(SlotSettings.model_validate({"backend": "llama.cpp", "manage": {}}), "phi", 1)
