"""Brings the slots up, tries those that have failed, and notices those that hang.

Looked at by the main thread again and again; whatever takes time runs in a thread of its own, named after its slot,
which ends by itself: a start when its engine is stopped, a probe by its own time limit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final

from inferbus_worker.engines.backoff import jittered_pause
from inferbus_worker.engines.base import EngineStartError
from inferbus_worker.engines.slot import Slot
from inferbus_worker.engines.watchdog import Watchdog, probe
from inferbus_worker.seldom import Once

log = logging.getLogger("inferbus.slots")

_WARM_UP_TIMEOUT: Final = 120.0
_PROBE_TIMEOUT: Final = 10.0
_FIRST_RETRY: Final = 1.0
_LONGEST_RETRY: Final = 30.0
#: An answer from a server that has not grown for so many times the silence is given up: with five minutes of it, also a
#: prompt that a small machine reads for long has had its time.
_SILENCES: Final = 10


class SlotLives:
    """For the main thread.

    Args:
        slots: those that are watched.
        kept: names of those that somebody else starts and stops.
        silence: seconds without a finished request after which a slot is asked for one token; 0: never.
        clock: a monotonic one.
    """

    def __init__(
        self,
        slots: Iterable[Slot],
        silence: float,
        *,
        kept: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        every = list(slots)
        self._every = [_Life(slot, silence, clock, has_others=len(every) > 1) for slot in every]
        self._lives = [life for life in self._every if life.slot.name not in kept]

    def start(self) -> None:
        """Begin to bring them up."""
        for life in self._lives:
            life.begin()

    def look(self) -> None:
        """Do what is due. Never waits."""
        for life in self._every:
            life.look()

    def failure(self) -> BaseException | None:
        """Why nothing will ever be served: each slot's end was final; of several the first one's."""
        ends = [life.end for life in self._every]
        return ends[0] if ends and all(end is not None for end in ends) else None

    def lost_here(self) -> str | None:
        """Why an engine in this process is lost, which only a new process mends."""
        return next((life.loss for life in self._lives if life.loss is not None), None)

    def stop(self, timeout: float) -> None:
        """Stop every engine, side by side, within `timeout` seconds."""
        threads = [
            threading.Thread(target=life.stop, args=(timeout,), name=f"slot-stop {life.slot.name}", daemon=True)
            for life in self._lives[1:]
        ]
        for thread in threads:
            thread.start()
        for life in self._lives[:1]:
            life.stop(timeout)
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


class _Life:
    """One slot's.

    Attributes:
        end: why it will never serve.
        loss: why its engine, in this process, has been given up after it had served.
    """

    def __init__(self, slot: Slot, silence: float, clock: Callable[[], float], *, has_others: bool) -> None:
        self.slot = slot
        self._has_others = has_others
        self.end: BaseException | None = None
        self.loss: str | None = None
        self._silence = silence
        self._clock = clock
        self._watchdog: Watchdog | None = None
        self._again_at: float | None = None
        self._failures = 0
        self._leaked = 0
        self._complaints = Once(log)

    def begin(self) -> None:
        self.slot.state = "starting"
        self._in_thread("slot-start", self._bring_up)

    def stop(self, timeout: float) -> None:
        try:
            self.slot.engine.stop(timeout)
        except Exception:  # the others stop all the same
            log.exception("%s: could not be stopped in order", self.slot.name)

    def look(self) -> None:
        slot = self.slot
        if self._silence and not slot.is_here:
            self._give_up_silent()
        if slot.state == "down" and self._again_at is not None and self._clock() >= self._again_at:
            self._again_at = None
            self._in_thread("slot-start", self._bring_up)
        if slot.state != "ready":
            self._watchdog = None
            return
        if self._watchdog is None:
            self._watchdog = self._new_watchdog()
        complaint = slot.engine.death or self._watchdog.complaint()
        if complaint is not None:
            self._give_up(str(complaint))
        elif slot.engine.leaked > self._leaked:
            self._leaked = slot.engine.leaked
            slot.breaker.trip("it goes on with what was given up")
        if slot.breaker.may_probe():
            self._in_thread("slot-probe", self._probe)

    def _give_up_silent(self) -> None:
        """Nobody may wait for ever for an answer that a server has forgotten, however well it answers others."""
        patience = _SILENCES * self._silence
        late = self._clock() - patience
        for lease in tuple(self.slot.leases):
            if lease.grew_at < late:
                lease.give_up(f"{self.slot.name} has said nothing for {patience:g} s")

    def _give_up(self, complaint: str) -> None:
        if not self.slot.is_here:
            self.slot.breaker.trip(complaint)
            self._watchdog = None
            return
        self.slot.state, self.loss = "dead", complaint

    def _bring_up(self) -> None:
        slot = self.slot
        try:
            slot.engine.start()
            error = probe(slot.engine, _WARM_UP_TIMEOUT)
            if error is not None:
                reason = error or type(error).__name__
                what = "the model loaded but does not answer" if slot.is_here else "it does not answer a test request"
                raise EngineStartError(f"{what}: {reason}") from error  # noqa: TRY301
        except Exception as error:  # noqa: BLE001 - handed to the main thread, which raises it
            if slot.is_here:
                self._end_for_good(error)
            else:
                self._try_again(error)
        except BaseException as error:  # noqa: BLE001 - as vLLM's parser raises it
            self._end_for_good(error)
        else:
            self._failures = 0
            self._complaints.forget()
            slot.became_ready()

    def _end_for_good(self, error: BaseException) -> None:
        self.slot.state, self.end = "dead", error
        if self._has_others:  # else the main thread says it, and ends
            why = "its options were refused" if isinstance(error, SystemExit) else str(error) or type(error).__name__
            log.error("%s: does not serve until the worker is started again: %s", self.slot.name, why)

    def _try_again(self, error: Exception) -> None:
        pause = jittered_pause(_FIRST_RETRY, self._failures, _LONGEST_RETRY)
        self._failures += 1
        reason = str(error) or type(error).__name__
        again = "%s: %s (trying again in %.0f s, and then on without a word)"
        self._complaints.say(logging.WARNING, reason, again, self.slot.name, reason, pause)
        if not isinstance(error, EngineStartError):
            log.debug("how it failed", exc_info=error)
        self._again_at = self.slot.again_at = self._clock() + pause
        self.slot.state = "down"

    def _probe(self) -> None:
        error: Exception | None
        try:
            error = probe(self.slot.engine, _PROBE_TIMEOUT)
        except Exception as failure:  # noqa: BLE001 - else nobody would tell the breaker for a minute
            error = failure
        if error is None:
            self.slot.breaker.succeeded()
        else:
            self.slot.breaker.failed(str(error) or type(error).__name__)

    def _new_watchdog(self) -> Watchdog:
        slot = self.slot
        return Watchdog(
            slot.engine,
            self._silence,
            active=lambda: slot.active,
            # A server that answers one after the other answers no probe during a long answer; but that grows.
            finished=lambda: slot.figures.finished + slot.pieces,
            forms_given_up=lambda: slot.forms_given_up,
            clock=self._clock,
        )

    def _in_thread(self, what: str, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name=f"{what} {self.slot.name}", daemon=True).start()
