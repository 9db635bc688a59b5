"""Another try: only while nothing was shown, on another slot first, bounded, and stopped by whatever ends a request."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferbus_client.contract.wire import Failure
from inferbus_client.mqtt.message import Incoming
from inferbus_worker.engines.base import (
    BackendError,
    BackendFault,
    ChatCall,
    EngineDeadError,
    EngineError,
)
from inferbus_worker.flow.job import Job
from inferbus_worker.settings.projects import ProjectSettings
from support.rooms import NOTHING, Chunk, Rooms, Script, ScriptedEngine, answer, replies

pytestmark = pytest.mark.usefixtures("state")

FORM = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "boolean"}}}


def raises(error: BaseException) -> Script:
    def script(_call: ChatCall) -> Iterator[Chunk]:
        yield from ()
        raise error

    return script


def gone(fault: BackendFault = "connection", **more: Any) -> Script:
    """A script that fails before it says anything."""
    return raises(BackendError("failed", fault, **more))


def broken_off(_call: ChatCall) -> Iterator[Chunk]:
    """A script that breaks off after half a word."""
    yield Chunk("half")
    raise BackendError("cut", "cut")


def two(first: Script, second: Script | None = None, **more: Any) -> Rooms:
    """Rooms with one model in two slots."""
    engines = [ScriptedEngine(first), ScriptedEngine(second or answer("fine"))]
    return Rooms(models={"m": engines}, rate=None, **more)


def one(script: Script, **more: Any) -> Rooms:
    return Rooms(models={"m": [ScriptedEngine(script)]}, rate=None, **more)


def step(rooms: Rooms) -> Job | None:
    """Run what can be taken now."""
    if rooms.shared is not None:
        rooms.shared.fetch()
    job = rooms.queue.take(0)
    if job is not None:
        rooms.turns.run(job)
    return job


def finish(rooms: Rooms, *, seconds: float = 120) -> list[dict[str, Any]]:
    """Run, and let time pass, until nothing is in flight; the terminal replies."""
    said = []
    for _ in range(int(seconds * 10)):
        while step(rooms) is not None:
            pass
        rooms.overdue.look()
        said += replies(rooms.sent())
        if not len(rooms.in_flight):
            break
        rooms.clock.pass_(0.1)
    return [reply for reply in said if reply["type"] in {"done", "error"}]


def calls(rooms: Rooms) -> list[int]:
    """How often each slot has been asked."""
    return [len(slot.engine.calls) for slot in rooms.slots.slots]  # type: ignore[attr-defined]


def is_clean(rooms: Rooms) -> bool:
    return rooms.left_behind == NOTHING and rooms.slots.active == 0


class TestWhen:
    def test_another_slot_answers_at_once(self) -> None:
        rooms = two(gone())
        rooms.ask(reply="json")
        step(rooms)
        assert step(rooms) is not None, "without any rest"
        (done,) = finish(rooms)
        assert (done["type"], done["text"], done["model"]) == ("done", "fine", "m")
        assert calls(rooms) == [1, 1]
        assert is_clean(rooms)

    def test_the_same_slot_gets_it_after_a_rest(self) -> None:
        rooms = one(gone())
        rooms.ask(reply="json")
        step(rooms)
        assert step(rooms) is None
        rooms.clock.pass_(0.21)
        assert step(rooms) is not None

    def test_it_is_tried_as_often_as_is_said_and_no_more(self) -> None:
        for most in (0, 1, 2):
            rooms = one(gone("5xx"), max_retries=most)
            rooms.ask(reply="json")
            (error,) = finish(rooms)
            assert error["code"] == "engine_error"
            assert calls(rooms) == [most + 1]
            assert is_clean(rooms)

    def test_nothing_that_was_shown_is_shown_twice(self) -> None:
        rooms = two(broken_off)
        rooms.ask(stream=True)
        (error,) = finish(rooms)
        assert error["code"] == "engine_error"
        assert calls(rooms) == [1, 0]
        assert is_clean(rooms)

    def test_what_was_read_and_not_shown_is_no_hindrance(self) -> None:
        rooms = two(broken_off)
        rooms.ask(reply="json")
        (done,) = finish(rooms)
        assert done["text"] == "fine"

    @pytest.mark.parametrize("error", [EngineError("a bug"), BackendError("spent", "429", may_retry=False)])
    def test_what_no_later_try_mends_is_not_tried_again(self, error: EngineError) -> None:
        rooms = two(raises(error))
        rooms.ask(reply="json")
        assert len(finish(rooms)) == 1
        assert calls(rooms) == [1, 0]
        assert is_clean(rooms)

    def test_an_engine_that_died_leaves_its_requests_to_another_slot(self) -> None:
        rooms = two(raises(EngineDeadError("gone")))
        rooms.ask(reply="json")
        (done,) = finish(rooms)
        assert done["type"] == "done"

    def test_not_after_the_time_for_tries(self) -> None:
        rooms = one(gone("503", retry_after=20), retry_for="30s", max_retries=10, slot_timeout="1h")
        rooms.ask(reply="json")
        (error,) = finish(rooms)
        assert error["code"] == "overloaded"
        assert error["retryAfterMs"] > 0
        assert calls(rooms)[0] <= 3
        assert is_clean(rooms)

    def test_a_backend_s_word_is_kept(self) -> None:
        rooms = one(gone("429", retry_after=7))
        rooms.ask(reply="json")
        step(rooms)
        for _ in range(69):
            rooms.clock.pass_(0.1)
            assert step(rooms) is None
        rooms.clock.pass_(0.2)
        assert step(rooms) is not None

    def test_retries_are_at_most_a_fifth_of_first_tries(self) -> None:
        """Those that rest keep no place: in a group they once kept their worker from all that waited in the store."""
        rooms = one(gone("5xx"), max_sessions=1000, queue_size=1000, max_retries=2)
        for number in range(200):
            rooms.ask(f"s{number}", reply="json")
        rooms.slot.breaker.failed = lambda reason: None  # type: ignore[method-assign]  # noqa: ARG005
        ended = finish(rooms, seconds=9)
        assert 200 < calls(rooms)[0] <= 1.2 * 200
        ended += finish(rooms)
        assert len(ended) == 200
        assert is_clean(rooms)

    def test_its_turn_is_counted_once_where_the_broker_waits(self) -> None:
        begun: list[object] = []
        rooms = one(gone("5xx"))
        rooms.turns._begins = begun.append
        rooms.clock.now = 0.0  # where a clock begins is its own affair
        rooms.ask(reply="json")
        finish(rooms)
        assert len(begun) == 1

    def test_a_refusal_names_a_time_that_is_one(self) -> None:
        rooms = one(gone("429", retry_after=0.0001), max_retries=0)
        rooms.ask(reply="json")
        (error,) = finish(rooms)
        assert error["retryAfterMs"] >= 1


class TestGivenForms:
    def test_one_that_was_cancelled_before_it_began_says_nothing_of_grammars(self) -> None:
        """It once had the watchdog ask the engine for a form, which it had never been asked for."""
        rooms = Rooms(projects={"general": ProjectSettings(response_format=True)})
        rooms.ask(reply="json", params={"response_format": FORM})
        job = rooms.take()
        assert job.request.has_form
        rooms.receive("general/cancel/s1")
        rooms.turns.run(job)
        assert rooms.slot.forms_given_up == 0
        assert is_clean(rooms)


class TestWhateverIsRaised:
    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(2), RuntimeError("a bug"), MemoryError()])
    def test_it_counts_as_the_slot_s_and_the_request_ends(self, error: BaseException) -> None:
        """A panic in an engine counted as if its requester had cancelled."""
        rooms = one(raises(error))
        rooms.ask(reply="json")
        job = rooms.take()
        with contextlib.suppress(type(error)):  # some of them pass, and are the pool's
            rooms.turns.run(job)
        (said,) = [reply for reply in replies(rooms.sent()) if reply["type"] == "error"]
        assert said["code"] == "engine_error"
        assert rooms.slot.reading().errors == {"error": 1}
        assert is_clean(rooms)


def cancel(rooms: Rooms) -> None:
    rooms.reception.receive(Incoming(topic="general/cancel/s1", payload=b""))


def let_it_expire(rooms: Rooms) -> None:
    rooms.clock.pass_(1000)
    rooms.overdue.look()


def shut_down(rooms: Rooms) -> None:
    for job in rooms.in_flight.all():
        if job.mark(Failure("shutting_down")) and rooms.queue.remove(job):
            rooms.endings.later(job)


def lose_the_model(rooms: Rooms) -> None:
    for slot in rooms.slots.slots:
        slot.state = "down"
    rooms.overdue.look()


def do_nothing(_rooms: Rooms) -> None: ...


ENDS = [cancel, let_it_expire, shut_down, lose_the_model]


class TestEndsBetween:
    """At every moment of its tries a request is ended from outside: one terminal reply, and nothing is left."""

    @settings(max_examples=150)
    @given(
        at=st.integers(0, 8),
        end=st.sampled_from(ENDS),
        again=st.sampled_from([*ENDS, do_nothing]),
        within=st.booleans(),
        stream=st.booleans(),
        slots=st.integers(1, 2),
    )
    def test_exactly_one_reply(
        self,
        at: int,
        end: Callable[[Rooms], None],
        again: Callable[[Rooms], None],
        within: bool,  # noqa: FBT001 - drawn
        stream: bool,  # noqa: FBT001
        slots: int,
    ) -> None:
        moments = 0

        def moment(rooms: Rooms) -> None:
            nonlocal moments
            if moments == at:
                end(rooms)
                again(rooms)
            moments += 1

        def script(_call: ChatCall) -> Iterator[Chunk]:
            if within:
                moment(rooms)
            yield Chunk()
            raise BackendError("failed", "5xx")

        models = {"m": [ScriptedEngine(script) for _ in range(slots)]}
        rooms = Rooms(models=models, rate=None)
        gave_back = rooms.queue.give_back

        def just_before(job: Job) -> None:
            moment(rooms)
            gave_back(job)
            moment(rooms)

        rooms.queue.give_back = just_before  # type: ignore[method-assign]
        said = replies(rooms.ask(stream=stream, reply="json", deadlineMs=500_000))
        for _ in range(60):
            moment(rooms)
            rooms.next_is_here()
            job = rooms.queue.take(0)
            moment(rooms)
            if job is not None:
                rooms.turns.run(job)
            rooms.overdue.look()
            rooms.clock.pass_(0.2)
            said += replies(rooms.sent())
        assert [reply["type"] for reply in said if reply["type"] in {"done", "error"}] == ["error"]
        assert is_clean(rooms)
        assert len(rooms.queue) == 0
