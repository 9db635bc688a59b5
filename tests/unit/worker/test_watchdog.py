"""The watchdog: what it takes for progress, when it asks, and what it makes of the answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from inferbus_worker.chat import Usage
from inferbus_worker.engines.base import (
    BackendError,
    BackendFault,
    ChatCall,
    EngineDeadError,
    EngineError,
    InvalidCallError,
)
from inferbus_worker.engines.watchdog import Watchdog
from support.rooms import Chunk, FakeClock, Script, ScriptedEngine, answer
from support.waiting import until


class Watched:
    """A watchdog of ten seconds, and what it looks at."""

    def __init__(self, script: Script, silence: float = 10.0) -> None:
        self.clock = FakeClock()
        self.engine = ScriptedEngine(script)
        self.active = self.finished = self.given_up = 0
        self.dog = Watchdog(
            self.engine,
            silence,
            active=lambda: self.active,
            finished=lambda: self.finished,
            forms_given_up=lambda: self.given_up,
            clock=self.clock,
        )

    def after_a_probe(self, probes: int = 1) -> str | None:
        """What it says once it has asked so often."""
        self.dog.complaint()
        until(lambda: len(self.engine.calls) == probes and not self._is_asking())
        return self.dog.complaint()

    def _is_asking(self) -> bool:
        return self.dog._probe is not None and self.dog._probe.is_alive()


def failing(error: EngineError) -> Script:
    def script(_call: ChatCall) -> Iterator[Chunk]:
        yield from ()
        raise error

    return script


def without_forms(error: EngineError) -> Script:
    """An engine that hangs, or refuses, where it has to compile a grammar, and answers all else."""

    def script(call: ChatCall) -> Iterator[Chunk]:
        if call.has_form:
            raise error
        yield Chunk("fine", finish_reason="stop", usage=Usage(1, 1))

    return script


def test_silence_while_turns_are_under_way_is_asked_about() -> None:
    watched = Watched(failing(EngineError("stuck")))
    watched.active = 1
    watched.clock.pass_(9)
    assert watched.dog.complaint() is None
    assert not watched.engine.calls
    watched.clock.pass_(2)
    assert watched.after_a_probe() == "no answer to one token within 10 s: stuck"


@pytest.mark.parametrize("fault", ["429", "503", "529"])
def test_a_server_that_has_enough_to_do_says_so_and_lives(fault: BackendFault) -> None:
    watched = Watched(failing(BackendError("too many requests", fault)))
    watched.active = 1
    watched.clock.pass_(11)
    assert watched.after_a_probe() is None


def test_an_engine_that_answers_is_let_be() -> None:
    watched = Watched(answer("fine"))
    watched.active = 1
    watched.clock.pass_(11)
    assert watched.after_a_probe() is None
    watched.clock.pass_(9)
    watched.dog.complaint()
    assert len(watched.engine.calls) == 1


def test_idleness_and_turns_that_end_are_no_silence() -> None:
    watched = Watched(failing(EngineError("stuck")))
    watched.clock.pass_(100)
    assert watched.dog.complaint() is None
    watched.active = 1
    for _ in range(20):
        watched.clock.pass_(9)
        watched.finished += 1
        assert watched.dog.complaint() is None
    assert not watched.engine.calls


def test_a_form_that_was_given_up_is_asked_about_while_all_else_goes_on() -> None:
    watched = Watched(without_forms(EngineError("stuck")))
    watched.active, watched.finished, watched.given_up = 3, 100, 1
    assert watched.after_a_probe() == "no answer to one token in a given form within 10 s: stuck"
    assert watched.engine.calls[0].has_form


def test_where_forms_are_answered_one_that_was_given_up_was_slow_and_no_more() -> None:
    watched = Watched(answer("true"))
    watched.given_up = 1
    assert watched.after_a_probe() is None
    assert watched.dog.complaint() is None
    assert len(watched.engine.calls) == 1
    watched.given_up = 5
    assert watched.after_a_probe(2) is None


def test_an_engine_that_takes_no_forms_says_so_and_lives() -> None:
    watched = Watched(without_forms(InvalidCallError("Only fast tokenizers are supported.")))
    watched.given_up = 1
    assert watched.after_a_probe() is None


def test_one_that_is_dead_does_not() -> None:
    watched = Watched(without_forms(EngineDeadError("gone")))
    watched.given_up = 1
    assert watched.after_a_probe() == "no answer to one token in a given form within 10 s: gone"


@pytest.mark.parametrize("given_up", [0, 1])
def test_a_silence_of_zero_asks_never(given_up: int) -> None:
    watched = Watched(failing(EngineError("stuck")), silence=0)
    watched.active, watched.given_up = 1, given_up
    watched.clock.pass_(1000)
    assert watched.dog.complaint() is None
    assert not watched.engine.calls
