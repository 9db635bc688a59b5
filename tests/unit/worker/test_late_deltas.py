"""What an attempt says after it was given up is heard by nobody: neither before the next one answers, nor between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from inferbus_worker.chat import Usage
from inferbus_worker.engines.base import BackendError, ChatCall, OnDelta
from support.rooms import NOTHING, Chunk, Rooms, ScriptedEngine, ScriptedGeneration, replies

pytestmark = pytest.mark.usefixtures("state")


class LateEngine(ScriptedEngine):
    """Keeps what hears each of its answers."""

    def __init__(self) -> None:
        super().__init__(self.answer)
        self.ears: list[OnDelta] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def generate(self, call: ChatCall, on_delta: OnDelta | None = None) -> ScriptedGeneration:
        assert on_delta is not None
        self.ears.append(on_delta)
        return super().generate(call, on_delta)

    def answer(self, _call: ChatCall) -> Iterator[Chunk]:
        """The first attempt fails before it says anything, the second one says two words."""
        if len(self.ears) == 1:
            raise BackendError("gone", "cut")
        self.meanwhile()
        yield Chunk("fine ")
        self.meanwhile()
        yield Chunk("words")
        self.meanwhile()
        yield Chunk(finish_reason="stop", usage=Usage(1, 2))


@pytest.fixture
def engine() -> LateEngine:
    return LateEngine()


@pytest.fixture
def rooms(engine: LateEngine) -> Rooms:
    return Rooms(models={"m": [engine]}, rate=None)


def run(rooms: Rooms) -> list[dict[str, Any]]:
    """Both attempts; all replies but the first one, which says that it was accepted."""
    for _ in range(2):
        rooms.turns.run(rooms.take())
        rooms.clock.pass_(1)
    assert rooms.left_behind == NOTHING
    return replies(rooms.sent())


@pytest.mark.parametrize("reasoning", ["", "a late thought"])
def test_it_does_not_reach_the_answer_of_the_next_attempt(rooms: Rooms, engine: LateEngine, reasoning: str) -> None:
    engine.meanwhile = lambda: engine.ears[0]("late ", reasoning)
    rooms.ask(stream=True)
    *deltas, done = run(rooms)
    assert "".join(delta["text"] for delta in deltas) == "fine words"
    assert not any(delta.get("reasoning") for delta in deltas)
    assert (done["type"], done["text"]) == ("done", "fine words")


def test_it_is_not_shown_between_the_decision_and_the_next_attempt(rooms: Rooms, engine: LateEngine) -> None:
    """The thread that answers may be anywhere in `grow` while another one decides."""
    rooms.ask(stream=True)
    release = rooms.slots.release

    def and_late(lease: Any, error: BaseException | None) -> None:
        if len(engine.ears) == 1:
            engine.ears[0]("late ", "")
        release(lease, error)

    rooms.slots.release = and_late  # type: ignore[method-assign]
    *deltas, done = run(rooms)
    assert "".join(delta["text"] for delta in deltas) == "fine words"
    assert done["type"] == "done"


def test_it_is_no_beginning_of_the_next_attempt(rooms: Rooms, engine: LateEngine) -> None:
    """Else the slot's time to the first token, by which its limit finds itself, would be another attempt's."""
    begins: list[bool] = []

    def late() -> None:
        engine.ears[0]("late ", "")
        begins.append(rooms.in_flight.all()[0].answering)

    engine.meanwhile = late
    rooms.ask(reply="json")
    assert run(rooms)[-1]["type"] == "done"
    assert begins == [False, True, True]
