"""What waits in vain ends in time, with the reason; what another model can answer goes there, behind those who wait."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from inferbus_worker.engines.slot import Slot
from inferbus_worker.settings.projects import ProjectSettings
from support.rooms import NOTHING, Rooms, ScriptedEngine, answer, replies

pytestmark = pytest.mark.usefixtures("state")

State = Literal["memory", "redis"]

ROBOTS = {"general": ProjectSettings(model="phi", models=["phi", "qwen"])}


def pair(*, fallback: bool = True, **more: Any) -> Rooms:
    """Rooms with `phi` in a slot for one, and `qwen`, which may stand in for it."""
    models = {
        "phi": [ScriptedEngine(answer("phi"), capacity=1)],
        "qwen": [ScriptedEngine(answer("qwen"), capacity=1)],
    }
    stand_ins = {"phi": ["qwen"]} if fallback else {}
    return Rooms(models=models, fallback=stand_ins, projects=ROBOTS, rate=None, **more)


def slot_of(rooms: Rooms, model: str) -> Slot:
    return rooms.models[model].slots[0]


def ended(rooms: Rooms) -> list[dict[str, Any]]:
    return [reply for reply in replies(rooms.sent()) if reply["type"] in {"done", "error"}]


class TestNoSlotInTime:
    def test_it_ends_as_overloaded_and_says_when_to_ask_again(self) -> None:
        rooms = pair()
        rooms.ask("busy", reply="json")
        busy = rooms.take()
        rooms.ask("late", reply="json")
        rooms.sent()
        rooms.clock.pass_(59.9)
        rooms.overdue.look()
        assert ended(rooms) == []
        rooms.clock.pass_(0.2)
        rooms.overdue.look()
        (error,) = ended(rooms)
        assert (error["code"], error["retryAfterMs"] > 0) == ("overloaded", True)
        rooms.turns.run(busy)
        assert rooms.left_behind == NOTHING

    def test_the_clock_stands_while_its_model_starts(self) -> None:
        rooms = pair()
        slot = slot_of(rooms, "phi")
        slot.state = "starting"
        rooms.ask(reply="json")
        for _ in range(300):
            rooms.clock.pass_(1)
            rooms.overdue.look()
        assert ended(rooms) == []
        slot.became_ready()
        slot.active = 1  # and has something else to do
        for seconds in (59, 0):
            assert ended(rooms) == []
            rooms.clock.pass_(seconds)
            rooms.overdue.look()
        rooms.clock.pass_(2)
        rooms.overdue.look()
        assert [error["code"] for error in ended(rooms)] == ["overloaded"]

    def test_a_deadline_counts_all_the_same(self) -> None:
        rooms = pair()
        slot_of(rooms, "phi").state = "starting"
        rooms.ask(reply="json", deadlineMs=5000)
        rooms.clock.pass_(5)
        rooms.overdue.look()
        assert [error["code"] for error in ended(rooms)] == ["deadline_exceeded"]

    def test_a_worker_of_one_engine_lets_it_wait(self) -> None:
        rooms = Rooms(rate=None)
        rooms.ask(reply="json")
        rooms.clock.pass_(100_000)
        rooms.overdue.look()
        assert rooms.queued() == 1


class TestNothingServesIt:
    def test_it_ends_at_once_where_nothing_stands_in(self) -> None:
        rooms = pair(fallback=False)
        rooms.ask(reply="json")
        slot_of(rooms, "phi").breaker.trip("silence")
        rooms.overdue.look()
        (error,) = ended(rooms)
        assert (error["code"], error["retryAfterMs"] > 0) == ("engine_unavailable", True)
        assert rooms.left_behind == NOTHING

    def test_who_comes_while_it_is_down_hears_when_it_is_tried_again(self) -> None:
        """It said 1 s, whatever was known."""
        rooms = pair(fallback=False)
        rooms.ask(reply="json")
        slot = slot_of(rooms, "phi")
        slot.state, slot.again_at = "down", rooms.clock() + 17
        rooms.overdue.look()
        errors = [*ended(rooms), *replies(rooms.ask("other", reply="json"))]
        assert [(error["code"], error["retryAfterMs"]) for error in errors] == [("engine_unavailable", 17_000)] * 2

    def test_it_goes_to_the_model_that_stands_in_and_the_answer_says_so(self) -> None:
        rooms = pair()
        rooms.ask(reply="json")
        slot_of(rooms, "phi").state = "down"
        rooms.overdue.look()
        assert rooms.queued("qwen") == 1
        rooms.work()
        rooms.ask("other", reply="json")
        (done,) = [reply for reply in replies(rooms.work()) if reply["type"] == "done"]
        assert (done["text"], done["model"]) == ("qwen", "qwen")
        assert rooms.left_behind == NOTHING

    def test_a_repeat_is_answered_with_the_model_that_answered(self) -> None:
        rooms = pair()
        rooms.ask(reply="json", requestId="r1", clientId="me")
        slot_of(rooms, "phi").state = "down"
        rooms.overdue.look()
        (first,) = [reply for reply in replies(rooms.work()) if reply["type"] == "done"]
        slot_of(rooms, "phi").state = "ready"
        (again,) = replies(rooms.ask(reply="json", requestId="r1", clientId="me"))
        assert (first["model"], again["model"]) == ("qwen", "qwen")

    def test_those_who_come_over_wait_behind_those_who_are_there(self) -> None:
        """A flood for a model that went away once came before all that waited for the one that stands in for it."""
        rooms = pair(queue_size=1000, max_sessions=1000)
        first = rooms.ask("there", model="qwen", reply="json")
        assert replies(first)[0]["queuePosition"] == 0
        for number in range(50):
            rooms.ask(f"s{number}", model="phi", reply="json")
        slot_of(rooms, "phi").state = "down"
        rooms.overdue.look()
        assert rooms.take().key.session == "there"

    def test_those_who_come_over_take_turns_with_others_who_ask(self) -> None:
        rooms = pair(queue_size=1000, max_sessions=1000)
        for number in range(20):
            rooms.ask(f"s{number}", model="phi", reply="json", clientId="flood")
        slot_of(rooms, "phi").state = "down"
        rooms.overdue.look()
        rooms.ask("mine", model="qwen", reply="json", clientId="me")
        slot_of(rooms, "qwen").engine.capacity = 8  # type: ignore[misc]
        slot_of(rooms, "qwen").became_ready()
        assert "mine" in [rooms.take().key.session for _ in range(2)]

    def test_a_request_that_is_cancelled_on_its_way_over_waits_no_more(
        self, state: State, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rooms = pair()
        rooms.ask("s1", reply="json")
        slot_of(rooms, "phi").state = "down"
        place: object = rooms.in_flight
        move = "moved"
        if rooms.shared is not None:
            place, move = rooms.shared.membership.group, "put_back"
        moved = getattr(place, move)

        said: list[dict[str, Any]] = []

        def and_cancelled(*whom: Any) -> Any:
            said.extend(replies(rooms.receive("general/cancel/s1")))
            return moved(*whom)

        monkeypatch.setattr(place, move, and_cancelled)
        rooms.overdue.look()
        if state == "redis":  # it comes back to the store as one that must be looked at
            rooms.overdue.look()
        assert [error["code"] for error in (*said, *ended(rooms))] == ["cancelled"]
        assert rooms.left_behind == NOTHING

    def test_who_has_come_over_waits_for_a_slot_no_longer_for_that(self) -> None:
        rooms = pair()
        for session, model in (("busy", "qwen"), ("s1", "phi")):
            rooms.ask(session, reply="json", model=model)
            if session == "busy":
                rooms.take()
        rooms.clock.pass_(50)
        slot_of(rooms, "phi").state = "down"
        rooms.overdue.look()
        rooms.sent()
        for seconds, code in ((9, []), (2, ["overloaded"])):
            rooms.clock.pass_(seconds)
            rooms.overdue.look()
            assert [error["code"] for error in ended(rooms)] == code

    def test_answers_in_a_given_form_are_counted_where_they_go(self) -> None:
        form = {"response_format": {"type": "json_object"}}
        models = {"phi": [ScriptedEngine()], "qwen": [ScriptedEngine()]}
        projects = {"general": ProjectSettings(model="phi", models=["qwen"], response_format=True)}
        rooms = Rooms(models=models, fallback={"phi": ["qwen"]}, projects=projects, rate=None)
        rooms.ask(reply="json", params=form)
        slot_of(rooms, "phi").state = "down"
        rooms.overdue.look()
        assert (rooms.forms("phi"), rooms.forms("qwen")) == (0, 1)
        rooms.work()
        assert (rooms.forms("phi"), rooms.forms("qwen")) == (0, 0)


class TestAnEngineThatIsLost:
    def test_what_runs_in_it_ends_while_what_waits_and_what_runs_elsewhere_goes_on(self) -> None:
        """A hang is no error that anybody raises: its requests waited until the drain was over."""
        rooms = pair()
        rooms.ask("hung", reply="json")
        hung = rooms.take()
        rooms.ask("well", model="qwen", reply="json")
        well = rooms.take()
        rooms.ask("waits", reply="json")
        slot_of(rooms, "phi").state = "dead"
        rooms.clock.pass_(1)
        rooms.overdue.look()
        assert hung.outcome is not None
        rooms.turns.run(hung)
        rooms.turns.run(well)
        rooms.turns.run(rooms.take())
        said = {reply["sessionId"]: reply.get("code", "done") for reply in ended(rooms)}
        assert said == {"hung": "engine_unavailable", "well": "done", "waits": "done"}
        assert rooms.left_behind == NOTHING
