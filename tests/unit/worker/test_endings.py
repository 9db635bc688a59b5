"""What is left behind where a step of a job's end fails, and who writes the end of what was cancelled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import NoReturn

import pytest

from inferbus_worker.engines.base import ChatCall
from inferbus_worker.flow.in_flight import InFlight
from inferbus_worker.flow.meter import Meter
from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.state.memory import budgets
from inferbus_worker.state.memory.sessions import MemorySessions, _MemoryClaim
from support.rooms import NOTHING, Chunk, Rooms, replies


class _StepError(Exception):
    """A store that is away, say."""


def _fails(*_: object) -> NoReturn:
    raise _StepError


@pytest.mark.parametrize(
    ("step", "left"),
    [
        ((MemorySessions, "commit"), {}),
        ((MemorySessions, "release"), {"claims": 1}),
        ((InFlight, "remove"), {"in flight": 1}),
        ((Meter, "ended"), {}),
        ((budgets._Charge, "settle"), {}),
    ],
    ids=lambda case: case[1] if isinstance(case, tuple) else "",
)
def test_a_step_of_an_end_that_fails_takes_no_other_with_it(
    step: tuple[type, str], left: dict[str, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(*step, _fails)
    rooms = Rooms(token_budget=RateLimit(200, 60), max_history_tokens=0, max_tokens=50)
    rooms.ask(clientId="c", requestId="r", reply="json")
    rooms.turns.run(rooms.take())
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [_StepError]
    assert rooms.left_behind == NOTHING | left
    assert [reply["type"] for reply in replies(rooms.sent())] == ["done"]


def test_a_cancelled_session_is_free_however_long_the_thread_that_ran_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, cancelled, lets_go = threading.Event(), threading.Event(), threading.Event()

    def until_cancelled(_call: ChatCall) -> Iterator[Chunk]:
        begun.set()
        cancelled.wait()
        yield Chunk("too late")

    rooms = Rooms(script=until_cancelled)
    rooms.ask("s1", requestId="first", reply="json")
    runner = threading.Thread(target=rooms.turns.run, args=(rooms.take(),))
    runner.start()
    assert begun.wait(60)

    release = _MemoryClaim.release
    is_releasing = threading.Event()

    def slow_release(claim: _MemoryClaim) -> None:
        if threading.current_thread() is runner:
            is_releasing.set()
            lets_go.wait()
        release(claim)

    def cancel_and_see_it_end() -> None:
        """The thread that waits for the generation is quicker than the one that cancels it."""
        cancelled.set()
        while runner.is_alive() and not is_releasing.is_set():
            runner.join(0.01)

    monkeypatch.setattr(_MemoryClaim, "release", slow_release)
    monkeypatch.setattr(rooms.engine.generations[0], "cancel", cancel_and_see_it_end)
    said = rooms.receive("general/cancel/s1")
    said += rooms.ask("s1", requestId="second", reply="json")
    lets_go.set()
    runner.join(60)
    told = [(reply["requestId"], reply.get("code", reply["type"])) for reply in replies(said)]
    assert told == [("first", "cancelled"), ("second", "accepted")]
