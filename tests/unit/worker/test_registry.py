"""Models by name: which one a request means, who stands in for it, and what is said of a name that is not allowed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferbus_client.contract.wire import Failure
from inferbus_worker.engines.registry import Registry
from inferbus_worker.engines.vllm.engine import VllmEngine
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.settings.rates import RateLimit
from support.model_slots import model_of
from support.rooms import NOTHING, FakeClock, Rooms, ScriptedEngine, answer, replies, texts

pytestmark = pytest.mark.usefixtures("state")


def registry(fallback: dict[str, list[str]] | None = None, **projects: dict[str, Any]) -> Registry:
    clock = FakeClock()
    models = {
        name: model_of(name, [ScriptedEngine()], clock, fallback=(fallback or {}).get(name, ())) for name in "abc"
    }
    return Registry(models, {name: ProjectSettings(**fields) for name, fields in projects.items()})


class TestMeant:
    def test_the_project_s_own_where_none_is_named(self) -> None:
        models = registry(p={"model": "b"}, q={"model": "c"})
        assert models.meant("p", None) is models.models["b"]
        assert models.meant("q", None) is models.models["c"]
        assert models.default is models.models["b"]

    def test_those_that_the_project_allows(self) -> None:
        models = registry(p={"model": "b", "models": ["a"]})
        assert models.meant("p", "a") is models.models["a"]
        assert models.meant("p", "b") is models.models["b"]
        refused = models.meant("p", "c")
        assert isinstance(refused, Failure)
        assert (refused.code, "b, a" in refused.detail) == ("invalid_request", True)

    @pytest.mark.parametrize("word", ["\x1b[31mred", "x" * 100_000, "a\nb", "", "ä", "a b", 7, ["a"], {"a": 1}])
    def test_a_strange_word_is_refused_without_being_repeated(self, word: object) -> None:
        rooms = Rooms(models={"a": [ScriptedEngine()]}, rate=None, max_message_bytes=500_000)
        (said,) = texts(rooms.receive("general/user_input/s", {"message": "hello", "model": word}))
        assert len(said) < 300
        assert said.isprintable()
        assert rooms.left_behind == NOTHING

    def test_the_text_half_may_name_one_too(self) -> None:
        models = {"a": [ScriptedEngine(answer("by a"))], "b": [ScriptedEngine(answer("by b"))]}
        rooms = Rooms(models=models, rate=None)
        rooms.receive("general/user_input/s", json.dumps({"message": "hello", "model": "b"}))
        assert texts(rooms.work()) == ["by b"]
        assert texts(rooms.receive("general/user_input/s", {"message": "hello", "model": "c"})) == [
            "Error: Invalid request. model: this project's requests may name a, b."
        ]

    def test_without_models_a_request_may_name_what_the_engine_is_called(self) -> None:
        rooms = Rooms(rate=None)
        (done,) = [one for one in replies(rooms.answer(model="scripted", reply="json")) if one["type"] == "done"]
        assert done["model"] == "scripted"
        (error,) = replies(rooms.ask(model="gpt", reply="json"))
        assert error["code"] == "invalid_request"


class TestStandIns:
    def test_the_nearest_that_can(self) -> None:
        models = registry({"a": ["b"], "b": ["c"], "c": ["a"]}, p={"model": "a"})
        a, b, c = models.models.values()
        assert models.serving(a) is a
        a.slots[0].state = "down"
        assert models.serving(a) is b
        b.slots[0].breaker.trip("silence")
        assert models.serving(a) is c
        c.slots[0].state = "dead"
        assert models.serving(a) is None
        assert not models.will_serve

    def test_who_comes_in_vain_hears_of_the_first_moment_that_something_can_change(self) -> None:
        clock = FakeClock()
        models = {
            "a": model_of("a", [ScriptedEngine() for _ in range(3)], clock, fallback=["b"]),
            "b": model_of("b", [ScriptedEngine()], clock),
        }
        one = Registry(models, {"p": ProjectSettings(model="a")})
        down, left_alone, dead = models["a"].slots
        down.state, down.again_at = "down", clock() + 20
        dead.state = "dead"
        for _ in range(4):  # so that its pause is longer than the other's
            left_alone.breaker.trip("silence")
            clock.pass_(left_alone.breaker.retry_after)
            left_alone.breaker.may_probe()
        left_alone.breaker.failed("silence")
        stands_in = models["b"].slots[0]
        stands_in.state, stands_in.again_at = "down", clock() + 30
        down.again_at = clock() + 5
        assert left_alone.breaker.retry_after > 5
        assert one.unavailable(models["a"]) == Failure("engine_unavailable", retry_after_ms=5000)
        stands_in.again_at = clock() + 3
        assert one.unavailable(models["a"]).retry_after_ms == 3000
        stands_in.state = down.state = "dead"
        assert one.unavailable(models["a"]).retry_after_ms == round(left_alone.breaker.retry_after * 1000)
        assert one.unavailable(models["b"]).retry_after_ms == 1000, "and where nobody knows, soon"

    def test_while_a_slot_is_tried_something_can_change_at_once(self) -> None:
        """It said a minute: when a probe is taken for lost."""
        clock = FakeClock()
        models = {"a": model_of("a", [ScriptedEngine()], clock)}
        breaker = models["a"].slots[0].breaker
        breaker.trip("silence")
        clock.pass_(breaker.retry_after)
        assert breaker.may_probe()
        assert Registry(models, {"p": ProjectSettings()}).unavailable(models["a"]).retry_after_ms == 1000

    def test_one_that_starts_is_waited_for(self) -> None:
        models = registry({"a": ["b"]}, p={"model": "a"})
        models.models["a"].slots[0].state = "starting"
        assert models.serving(models.models["a"]) is models.models["a"]

    def test_each_project_has_a_lane_for_every_model_that_its_requests_may_get_to(self) -> None:
        models = registry({"a": ["b"], "b": ["c"]}, p={"model": "a"}, q={"model": "c", "models": ["c"]})
        assert models.lanes == {"p": ["a", "b", "c"], "q": ["c"]}

    def test_who_may_not_name_a_model_still_gets_to_the_one_that_stands_in(self) -> None:
        models = {"a": [ScriptedEngine()], "b": [ScriptedEngine(answer("by b"))]}
        rooms = Rooms(models=models, fallback={"a": ["b"]}, projects={"general": ProjectSettings(model="a")}, rate=None)
        rooms.models["a"].slots[0].state = "down"
        (done,) = [one for one in replies(rooms.answer(reply="json")) if one["type"] == "done"]
        assert (done["text"], done["model"]) == ("by b", "b")


def test_tokens_of_a_model_that_is_still_loading_are_estimated() -> None:
    """With a token budget, a request for it failed as long as only others were ready."""
    engine = VllmEngine("demo", [])
    rooms = Rooms(
        models={"a": [ScriptedEngine()], "b": [ScriptedEngine()]}, rate=None, token_budget=RateLimit(20_000, 60)
    )
    slot = rooms.models["b"].slots[0]
    slot.engine, slot.state = engine, "starting"
    (accepted,) = replies(rooms.ask(model="b", reply="json"))
    assert accepted["type"] == "accepted"
