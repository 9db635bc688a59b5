"""How slots come up, are tried again, are given up; and that one that fails for good says so."""

from __future__ import annotations

import logging
import threading

import pytest

from inferbus_worker.engines.base import (
    BackendError,
    CancelledGenerationError,
    EngineDeadError,
    EngineError,
    EngineStartError,
    Generation,
)
from inferbus_worker.engines.slot import Model, Slot
from inferbus_worker.engines.slot_lives import SlotLives
from inferbus_worker.engines.slots import Lease, SlotTable
from support.model_slots import model_of
from support.rooms import FakeClock, ScriptedEngine, ScriptedGeneration, fail
from support.waiting import until


class Starts(ScriptedEngine):
    """An engine whose starts end as they are told, one after the other; then well."""

    def told(self, *errors: BaseException | None) -> Starts:
        self.errors = list(errors)
        self.starts = 0
        return self

    def start(self) -> None:
        self.starts += 1
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error


def here(engine: ScriptedEngine, clock: FakeClock, name: str = "here") -> Slot:
    model = Model(name)
    model.slots.append(Slot(model, name, engine, clock=clock))
    return model.slots[0]


def across(engine: ScriptedEngine, clock: FakeClock, name: str = "across") -> Slot:
    (slot,) = model_of(name, [engine], clock).slots
    slot.state = "stopped"
    return slot


class TestStart:
    def test_what_answers_is_ready(self) -> None:
        clock = FakeClock()
        slot = here(Starts().told(), clock)
        SlotLives([slot], 0, clock=clock).start()
        until(lambda: slot.may_serve)
        assert slot.limit.value == 8

    @pytest.mark.parametrize("error", [EngineStartError("no such file"), RuntimeError("a bug"), SystemExit(2)])
    def test_the_only_engine_in_this_process_ends_it_with_its_own_error(
        self, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = FakeClock()
        lives = SlotLives([here(Starts().told(error), clock)], 0, clock=clock)
        lives.start()
        until(lambda: lives.failure() is error)
        assert "does not serve" not in caplog.text  # the main thread says it

    @pytest.mark.parametrize("error", [EngineStartError("no such file"), RuntimeError("a bug"), SystemExit(2)])
    def test_one_of_several_says_why_it_does_not_serve(
        self, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It was dead without a word, for as long as another answered."""
        clock = FakeClock()
        slots = [here(Starts().told(error), clock), across(Starts().told(EngineStartError("refused")), clock)]
        lives = SlotLives(slots, 0, clock=clock)
        lives.start()
        until(lambda: slots[0].state == "dead" and slots[1].state == "down")
        assert lives.failure() is None, "the other may come back"
        until(lambda: "here: does not serve" in caplog.text)

    @pytest.mark.parametrize("error", [EngineStartError("refused"), OSError("a bug"), ValueError()])
    def test_a_server_that_is_not_there_is_tried_again(self, error: Exception) -> None:
        """An error that nobody had foreseen once ended it for good."""
        clock = FakeClock()
        engine = Starts().told(error, error)
        slot = across(engine, clock)
        lives = SlotLives([slot], 0, clock=clock)
        lives.start()
        until(lambda: slot.state == "down")
        assert lives.failure() is None
        assert 0 < slot.retry_after <= 2
        lives.look()
        assert engine.starts == 1, "not before its time"

        def is_up() -> bool:
            clock.pass_(1)
            lives.look()
            return slot.may_serve

        until(is_up)
        assert engine.starts == 3

    def test_what_is_wrong_is_said_once_until_that_is_over(self, caplog: pytest.LogCaptureFixture) -> None:
        """A server that was switched off filled the log, a line for each try."""
        caplog.set_level(logging.INFO)
        clock, refused, other = FakeClock(), EngineStartError("refused"), EngineStartError("not well")
        engine = Starts().told(refused, refused, other, refused, other, None, refused)
        slot = across(engine, clock)
        lives = SlotLives([slot], 0, clock=clock)
        lives.start()

        def after(starts: int) -> bool:
            clock.pass_(1)
            lives.look()
            return engine.starts == starts

        until(lambda: after(6))
        until(lambda: slot.may_serve)
        said = [record.message.partition(" (")[0] for record in caplog.records if record.levelname == "WARNING"]
        assert said == ["across/1: refused", "across/1: not well"]
        slot.state = "down"
        lives._lives[0].begin()
        until(lambda: slot.state == "down" and engine.starts == 7)
        until(lambda: caplog.messages[-1].startswith("across/1: refused"))
        assert caplog.records[-1].levelname == "WARNING"

    def test_what_a_server_is_asked_is_a_request_and_no_model_is_loaded(self, caplog: pytest.LogCaptureFixture) -> None:
        clock = FakeClock()
        slot = across(ScriptedEngine(fail(EngineError("phi at http://h answered 404"))), clock)
        SlotLives([slot], 0, clock=clock).start()
        until(lambda: slot.state == "down")
        assert "across/1: it does not answer a test request: phi at http://h answered 404" in caplog.text
        assert "loaded" not in caplog.text

    def test_a_start_that_hangs_holds_up_no_other(self) -> None:
        clock, may_go = FakeClock(), threading.Event()

        class Hangs(ScriptedEngine):
            def start(self) -> None:
                may_go.wait(30)

        slots = [here(Hangs(), clock), across(Starts().told(), clock)]
        lives = SlotLives(slots, 0, clock=clock)
        lives.start()
        until(lambda: slots[1].may_serve)
        assert slots[0].state == "starting"
        assert lives.failure() is None
        may_go.set()
        until(lambda: slots[0].may_serve)


class TestWatch:
    def test_the_engine_here_that_died_is_lost_and_the_others_are_not(self) -> None:
        clock = FakeClock()
        engine = Starts().told()
        slots = [here(engine, clock), across(Starts().told(), clock)]
        lives = SlotLives(slots, 0, clock=clock)
        lives.start()
        until(lambda: all(slot.may_serve for slot in slots))
        engine.death = EngineDeadError("the core has ended")
        lives.look()
        assert lives.lost_here() == "the core has ended"
        assert [slot.state for slot in slots] == ["dead", "ready"]

    def test_a_leaked_slot_opens_the_breaker_once(self) -> None:
        clock = FakeClock()
        engine = Starts().told()
        slot = across(engine, clock)
        lives = SlotLives([slot], 0, clock=clock)
        lives.start()
        until(lambda: slot.may_serve)
        engine.leaked = 1
        lives.look()
        assert slot.breaker.state == "open"

        def is_well() -> bool:
            clock.pass_(1)
            lives.look()
            return slot.may_serve

        until(is_well)
        lives.look()
        assert slot.may_serve

    @pytest.mark.parametrize("error", [EngineError("still down"), RuntimeError("a bug")])
    def test_a_probe_that_fails_leaves_the_breaker_open(self, error: Exception) -> None:
        """One that raised what nobody had foreseen left it half-open for a minute."""
        clock = FakeClock()
        engine = Starts().told()
        slot = across(engine, clock)
        slot.became_ready()
        lives = SlotLives([slot], 0, clock=clock)
        slot.breaker.trip("silence")

        def failing(*_: object) -> Generation:
            raise error

        engine.generate = failing  # type: ignore[assignment, method-assign]
        clock.pass_(3)
        lives.look()
        until(lambda: slot.breaker.state == "open")


def test_an_engine_that_cannot_be_stopped_holds_up_no_other() -> None:
    clock = FakeClock()
    stopped = []

    class Broken(ScriptedEngine):
        def stop(self, timeout: float) -> None:  # noqa: ARG002
            raise RuntimeError("a bug")

    class Well(ScriptedEngine):
        def stop(self, timeout: float) -> None:
            stopped.append(timeout)

    SlotLives([here(Broken(), clock), across(Well(), clock)], 0, clock=clock).stop(1)
    assert stopped == [1]


class TestSilence:
    """Of a server across the network: ten seconds of silence ask for a token, a hundred give an answer up."""

    def under_way(self, clock: FakeClock) -> tuple[Lease, ScriptedEngine, SlotLives]:
        engine = ScriptedEngine()
        slot = across(engine, clock)
        slot.became_ready()
        slot.active = 1
        lease = Lease(SlotTable({slot.model.key: slot.model}, clock=clock), slot, clock(), 0.0, is_retry=False)
        lease.generation = ScriptedGeneration([], None)
        slot.leases.add(lease)
        lives = SlotLives([slot], 10, clock=clock)
        lives.look()
        return lease, engine, lives

    def test_an_answer_that_grows_is_none(self) -> None:
        clock = FakeClock()
        lease, engine, lives = self.under_way(clock)
        for _ in range(40):
            clock.pass_(5)
            lease.grows(clock())
            lives.look()
        assert engine.calls == []
        cancelled = CancelledGenerationError()
        assert lease.reason(cancelled) is cancelled

    def test_an_answer_that_does_not_grow_is_given_up_as_the_servers_fault(self) -> None:
        clock = FakeClock()
        lease, engine, lives = self.under_way(clock)
        clock.pass_(11)
        lives.look()
        until(lambda: engine.calls)
        assert isinstance(lease.reason(CancelledGenerationError()), CancelledGenerationError)
        clock.pass_(90)
        lives.look()
        reason = lease.reason(CancelledGenerationError())
        assert isinstance(reason, BackendError)
        assert (reason.fault, reason.may_retry) == ("timeout", True)
