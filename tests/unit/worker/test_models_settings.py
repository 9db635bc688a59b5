"""What is said of models: in pairs, at random, and what of it has no effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferbus_client.errors import SettingsError
from inferbus_worker.cli import serve
from inferbus_worker.engines.factory import make_lineup
from inferbus_worker.settings.pairs import without_effect
from inferbus_worker.settings.worker import Settings

TWO: dict[str, Any] = {
    "models": {"a": {"backend": "vllm", "url": "http://h:1"}, "b": {"engine": "simulated"}},
    "projects": {"general": {"model": "a", "models": ["b"]}},
}


def load(tmp_path: Path, text: dict[str, Any], **flags: Any) -> Settings:
    file = tmp_path / "inferbus.yaml"
    file.write_text(yaml.safe_dump(text))
    return Settings.load(flags, file)


class TestCannotBeMeant:
    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ({"backend": "ollama"}, "--backend is for one MODEL"),
            ({"max_workers": 1}, "--max-workers 1 are too few for 2 models"),
            ({"workers": 9, "max_workers": 4}, "--workers 9"),
            ({"projects": {"general": {}}}, "which of the 2 models answers"),
            ({"projects": {"general": {"model": "c"}}}, "there is no model c"),
            ({"projects": {"general": {"model": "a", "models": ["bb"]}}}, "there is no model bb; models: has a, b"),
        ],
    )
    def test_beside_models(self, tmp_path: Path, more: dict[str, Any], words: str) -> None:
        with pytest.raises(SettingsError, match=words):
            load(tmp_path, {**TWO, **more})

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ({"backend": "ollama", "engine": "simulated"}, "--engine simulated"),
            ({"projects": {"general": {"model": "a"}}}, "there are none"),
        ],
    )
    def test_without_models(self, tmp_path: Path, text: dict[str, Any], words: str) -> None:
        with pytest.raises(SettingsError, match=words):
            load(tmp_path, text)

    @pytest.mark.parametrize(
        ("slot", "words"),
        [
            ({}, "say one of the two"),
            ({"engine": "vllm", "path": "x", "backend": "vllm"}, "say one of the two"),
            ({"engine": "vllm"}, "needs a path"),
            ({"engine": "simulated", "path": "x"}, "path has no meaning"),
            ({"engine": "simulated", "options": {"a": 1}}, "options has no meaning"),
            ({"engine": "simulated", "url": "http://h"}, "url has no meaning"),
            ({"backend": "vllm", "capacity": 3}, "capacity has no meaning"),
            ({"backend": "vllm", "when": "on-demand"}, "when has no meaning"),
            ({"backend": "openai", "path": "x"}, "no server of openai's"),
            ({"backend": "vllm", "path": "x", "url": "http://h"}, "leave the url out"),
            ({"backend": "vllm", "slots": {"max": 2}}, "need a server that the worker starts"),
            ({"backend": "vllm", "slots": [{"backend": "vllm"}]}, "belongs into each of the slots"),
            ({"slots": []}, r"models.m.slots: must not be empty"),
            ({"backend": "vllm", "fallback": ["x"]}, "there is no model x"),
            ({"backend": "vllm", "fallback": ["m"]}, "cannot stand in for itself"),
            ({"backend": "vllm", "concurrency": 0}, "concurrency"),
            ({"backend": "nobody"}, "backend"),
            ({"backend": "openai", "api_key_file": ["k"]}, "api_key_file: must be a path"),
            ({"backend": "llama.cpp", "path": "x", "memory": "3"}, "m.memory: must be 1 MiB or more; without a unit"),
        ],
    )
    def test_a_slot(self, tmp_path: Path, slot: dict[str, Any], words: str) -> None:
        with pytest.raises(SettingsError, match=words):
            load(tmp_path, {"models": {"m": slot}})

    def test_more_slots_than_anybody_reads_of(self, tmp_path: Path) -> None:
        place = {"backend": "llama.cpp", "manage": {"command": ["serve", "{port}"]}, "slots": {"max": 64}}
        models = {f"m{number}": place for number in range(7)}
        with pytest.raises(SettingsError, match="448 slots are more than a worker can tell of, which is 400"):
            load(tmp_path, {"models": models, "projects": {"general": {"model": "m0"}}})

    @pytest.mark.parametrize("budget", ["0", "12", "1023 KiB"])
    def test_a_budget_of_some_bytes_had_a_unit_in_mind(self, tmp_path: Path, budget: str) -> None:
        words = "memory_budget: must be 1 MiB or more; without a unit a size is in bytes, say it as 6 GiB is said"
        with pytest.raises(SettingsError, match=words):
            load(tmp_path, {**TWO, "memory_budget": budget})


class TestWithoutEffect:
    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ({**TWO, "engine": "simulated"}, "--engine has no effect"),
            ({**TWO, "concurrency": 4}, "--concurrency has no effect"),
            ({**TWO, "vllm": {"max_model_len": 100}}, "vllm in the file has no effect"),
            ({**TWO, "memory_budget": "1 GiB"}, "--memory-budget has no effect"),
            ({**TWO, "simulated_first_token": "1s"}, "--simulated-first-token has no effect"),
            ({**TWO, "max_retries": 0, "retry_for": "1m"}, "--retry-for has no effect"),
            ({**TWO, "projects": {"general": {"model": "a"}}}, "models.b"),
            ({"backend": "ollama", "vllm": {"max_model_len": 100}}, "vllm in the file has no effect"),
            ({"backend": "ollama", "memory_budget": "1 GiB"}, "--memory-budget has no effect"),
            ({"engine": "simulated", "slot_timeout": "5s"}, "--slot-timeout has no effect"),
            ({"engine": "simulated", "url": "http://h"}, "--url has no effect"),
        ],
    )
    def test_it_is_named(self, tmp_path: Path, text: dict[str, Any], name: str) -> None:
        assert [sentence for sentence in without_effect(load(tmp_path, text)) if sentence.startswith(name)]

    def test_what_stands_in_for_a_reached_model_is_reached(self, tmp_path: Path) -> None:
        text = {
            "models": {"a": {"backend": "vllm", "fallback": ["b"]}, "b": {"engine": "simulated"}},
            "projects": {"general": {"model": "a"}},
        }
        assert without_effect(load(tmp_path, text)) == []

    def test_what_no_request_can_get_to_is_not_started_and_that_is_said(self, tmp_path: Path) -> None:
        """It was loaded all the same: gigabytes that nobody could ask for."""
        models: dict[str, dict[str, Any]] = {
            name: {"engine": "simulated"} for name in ("a", "b", "c", "idle", "beside")
        }
        models["a"]["fallback"] = ["c"]
        models["idle"]["fallback"] = ["a"]
        settings = load(tmp_path, {"models": models, "projects": {"p": {"model": "b"}, "q": {"model": "a"}}})
        assert list(make_lineup(settings, None, []).models) == ["a", "b", "c"]
        assert [said.partition(" no project")[0] for said in without_effect(settings)] == [
            "models.beside is not started:",
            "models.idle is not started:",
        ]

    def test_nothing_is_said_of_what_has_an_effect(self, tmp_path: Path) -> None:
        assert without_effect(load(tmp_path, {**TWO, "max_workers": 4, "slot_timeout": "5s", "max_retries": 1})) == []
        assert without_effect(load(tmp_path, {"engine": "simulated", "concurrency": "auto"})) == []


SAID = st.fixed_dictionaries(
    {},
    optional={
        "models": st.dictionaries(
            st.sampled_from(["a", "b", "x y", ""]),
            st.fixed_dictionaries(
                {},
                optional={
                    "engine": st.sampled_from(["vllm", "simulated", "no"]),
                    "backend": st.sampled_from(["vllm", "ollama", "openai", "no"]),
                    "path": st.just("demo"),
                    "url": st.sampled_from(["http://h:1", "ftp:/", ""]),
                    "concurrency": st.sampled_from([0, 1, 5000, "auto", "no"]),
                    "fallback": st.lists(st.sampled_from(["a", "b"]), max_size=2),
                    "slots": st.sampled_from([[], {"max": 2}, {"min": 3, "max": 1}, [{"engine": "simulated"}]]),
                    "memory": st.sampled_from(["1 GiB", "no", 0]),
                },
            ),
            max_size=2,
        ),
        "backend": st.sampled_from(["ollama", "no"]),
        "engine": st.sampled_from(["vllm", "simulated"]),
        "concurrency": st.sampled_from([1, "auto", 0]),
        "workers": st.integers(0, 20),
        "max_workers": st.integers(0, 20),
        "url": st.just("http://h:1"),
        "memory_budget": st.sampled_from(["1 GiB", "no"]),
        "projects": st.dictionaries(
            st.sampled_from(["general", "robots"]),
            st.fixed_dictionaries({}, optional={"model": st.sampled_from("ab"), "models": st.just(["a", "b"])}),
            max_size=2,
        ),
    },
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(SAID, st.sampled_from([[], ["demo"]]))
def test_whatever_is_said_is_taken_or_refused_in_words(tmp_path: Path, text: dict[str, Any], words: list[str]) -> None:
    file = tmp_path / "inferbus.yaml"
    file.write_text(yaml.safe_dump(text))
    ended = CliRunner().invoke(serve, ["--check-config", "--config", str(file), *words])
    assert ended.exception is None or isinstance(ended.exception, SystemExit | SettingsError), ended.exc_info
    if isinstance(ended.exception, SettingsError):
        assert len(str(ended.exception)) > 10


def test_a_model_that_is_elsewhere_has_no_slot_here(tmp_path: Path) -> None:
    models = {"small": {"engine": "simulated"}, "big": {"elsewhere": True, "fallback": ["small"]}}
    projects = {"general": {"model": "small", "models": ["big"]}}
    shared = load(tmp_path, {"state": "redis://127.0.0.1/0", "models": models, "projects": projects})
    assert make_lineup(shared, None, []).models["big"].state == "elsewhere"


@pytest.mark.parametrize(
    ("state", "models", "why"),
    [
        (None, {"a": {"engine": "simulated"}, "b": {"elsewhere": True}}, "in no group"),
        ("redis://127.0.0.1/0", {"b": {"elsewhere": True}}, "run nothing"),
        ("redis://127.0.0.1/0", {"b": {"elsewhere": True, "engine": "simulated"}}, "engine is for a model with a slot"),
        ("redis://127.0.0.1/0", {"b": {"elsewhere": True, "slots": [{"engine": "simulated"}]}}, "slots is for a model"),
    ],
)
def test_a_model_that_nobody_can_mean_to_be_elsewhere_is_refused(
    tmp_path: Path, state: str | None, models: dict[str, Any], why: str
) -> None:
    projects = {"general": {"model": next(iter(models))}}
    with pytest.raises(SettingsError, match=why):
        load(tmp_path, {"models": models, "projects": projects, **({} if state is None else {"state": state})})
