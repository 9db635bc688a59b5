"""The one thread that paces all simulated answers: nothing that one of them does stops it, or stays for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, NoReturn

import pytest

from inferbus_worker.engines.base import ChatCall, EngineDeadError, EngineError, Sampling
from inferbus_worker.engines.simulated import Behaviour, SimulatedEngine

_CALL: Final = ChatCall([{"role": "user", "content": "one two three"}], Sampling(0, 1, 100))


def soon() -> float:
    return time.monotonic() + 60


@pytest.fixture
def engine() -> Iterator[SimulatedEngine]:
    engine = SimulatedEngine(Behaviour(first_token=0.01, per_token=0.001))
    engine.start()
    yield engine
    engine.stop(5)


def _raises(_text: str, _reasoning: str) -> NoReturn:
    raise OSError


def test_a_listener_that_raises_fails_its_own_answer_alone(engine: SimulatedEngine) -> None:
    one, other = engine.generate(_CALL, _raises), engine.generate(_CALL)
    with pytest.raises(EngineError, match="raised"):
        one.wait(soon())
    assert other.wait(soon()).text == "one two three"
    assert engine.generate(_CALL).wait(soon()).text == "one two three"
    assert engine.running == 0


def test_an_answer_that_begins_after_the_stop_fails_at_once(engine: SimulatedEngine) -> None:
    engine.stop(5)
    with pytest.raises(EngineDeadError):
        engine.generate(_CALL).wait(soon())


def test_what_is_cancelled_long_before_it_is_due_takes_no_room() -> None:
    engine = SimulatedEngine(Behaviour(first_token=600))
    kept = engine.generate(_CALL)
    for _ in range(1000):
        engine.generate(_CALL).cancel()
    waiting = [echo for echoes in engine._pacer._due_at.values() for echo in echoes]
    assert len(waiting) == engine._pacer._waiting < 100
    assert any(echo is kept for echo in waiting)
