"""The worker's life: startup -> serve -> shutdown, and its signals. What it lives in, `wiring` builds.

The stop order, and why:

0. in a group: have the broker deal no more requests to this worker, decide on those that it had, and take no more;
1. close admission, say `draining`: what comes now is refused at once, and supervisors and clients can see why;
2. drain: what was admitted finishes, for at most `drain_timeout`; what is left then ends as `shutting_down`, or in a
   group goes back to it;
3. stop the intake (what it still holds is refused), join the worker threads and the thread of endings: nobody makes
   replies any more;
4. say `offline`, then flush the sender: the last replies and the farewell leave while the link is still up, for as
   long as the drain might have taken;
5. disconnect in order: so the broker does not publish the Last Will; then leave the store, to which the replies that
   could not leave go back;
6. stop answering over HTTP: until now it says what is going on;
7. stop the engines: last, since everything before may still need them. Meanwhile the last spans leave, where there is
   tracing: no more come after step 3, and a collector that takes none is not waited for any longer.

A second signal skips the waiting. A guard ends the process if any step hangs.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from enum import Enum
from types import FrameType
from typing import Final

from inferbus_client.contract.wire import Failure
from inferbus_client.errors import BrokerError
from inferbus_client.exits import Exit, exit_of
from inferbus_client.units import counted, format_duration
from inferbus_worker import logs
from inferbus_worker.engines.base import EngineStartError
from inferbus_worker.engines.factory import Lineup
from inferbus_worker.engines.registry import LOADING
from inferbus_worker.settings.worker import Settings
from inferbus_worker.wiring import build_house

log = logging.getLogger("inferbus.daemon")

_TICK: Final = 0.05
_JOIN: Final = 0.5
_FLUSH: Final = 0.5
_DISCONNECT: Final = 0.2
#: Until the broker has said that it deals no more to us.
_LEAVE_SHARE: Final = 2.0
_LEAVE_STORE: Final = 0.3
_ENGINE_STOP: Final = 0.5
#: Of that, what the loop of the engines across the network has for itself.
_LOOP_STOP: Final = 0.1
#: The flush takes at least `_FLUSH`. Promise 4: the process ends within `drain_timeout` plus this.
_GRACE: Final = 1.9


class Phase(Enum):
    """Where the daemon is in its life. What others may see of it is the presence's state."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    DEAD = "dead"


#: Why nothing is taken in a phase.
_CLOSED: Final[dict[Phase, Failure | None]] = {
    Phase.LOADING: LOADING,
    Phase.READY: None,
    Phase.DRAINING: Failure("shutting_down"),
    Phase.DEAD: Failure("engine_unavailable"),
}


class Daemon:
    """One worker process: its engines, one bus, and the rooms between them."""

    def __init__(self, settings: Settings, lineup: Lineup) -> None:
        self._settings = settings
        self._lineup = lineup
        self._signals = 0
        self._is_asked_to_leave = False
        house = build_house(settings, lineup, self._drain_asked)
        self._gate, self._rooms, self._bus = house.gate, house.rooms, house.bus
        self._membership = self._rooms.membership
        self._enter(Phase.LOADING)
        self._reporter, self._lives, self._keeper = house.reporter, house.lives, house.keeper
        self._readiness, self._http, self._tracer = house.readiness, house.http, house.tracer

    def run(self) -> int:
        """Serve until a signal or a failure ends it.

        Returns:
            The exit status.
        """
        self._handle_signals()
        try:
            status = self._startup() or self._serve()
        except BrokerError as error:
            status = Exit.OK if self._ends else exit_of(error)
            if not self._ends:
                log.error("%s", error.reason)  # noqa: TRY400 - a sentence for the operator, not a traceback
        except EngineStartError as error:
            log.error("%s", error)  # noqa: TRY400
            status = Exit.FAILED
        except SystemExit as leaving:  # vLLM's parser has refused an option, and said so
            status = leaving.code if isinstance(leaving.code, int) else Exit.USAGE
        return self._shutdown(status)

    # --- startup ---

    def _startup(self) -> int:
        """Bus first, so that requests hear `engine_unavailable` while the model loads; then engine, then workers."""
        if self._http is not None:
            self._http.start()
            log.info("health and metrics at %s", self._settings.http)
        self._rooms.intake.start()
        self._rooms.endings.start()
        mark = None if self._membership is None else self._membership.start(lambda: self._ends)
        self._bus.start(self._attend_start, mark)
        log.info("connected to %s; loading %s", self._bus.link.url, ", ".join(self._rooms.registry.states()))
        if not self._load():
            return Exit.OK
        # What has been loaded stays: the collector need not look through all of it again and again.
        gc.collect()
        gc.freeze()
        self._start_workers()
        logs.be_discreet()
        self._enter(Phase.READY)
        # Before the broker deals us more: what tells us that it can share may stand behind what is held.
        self._bus.link.call(self._rooms.reception.release)
        if self._membership is not None:
            self._membership.serve()
            self._bus.join(lambda: self._ends)
        self._readiness.look()
        served = (name if state == "ready" else f"{name} ({state})" for name, state in self._readiness.states.items())
        shared = f", in group {self._settings.group}" if self._settings.is_shared else ""
        log.info("ready: serving %s to %s%s", ", ".join(served), ", ".join(self._settings.projects), shared)
        return Exit.OK

    def _attend_start(self) -> bool:
        """Whether a signal has come. While the bus looks who else is there, others may look too, and ask us."""
        self._reporter.answer()
        self._let_others_help()
        return self._ends

    def _let_others_help(self) -> None:
        """What the broker has kept for us since we were last here need not wait for our model where others have it."""
        if self._membership is not None and self._gate.reason is LOADING and self._membership.is_served():
            self._gate.reason = None
            self._bus.link.call(self._rooms.reception.release)

    def _enter(self, phase: Phase) -> None:
        self._phase, self._gate.reason = phase, _CLOSED[phase]

    def _load(self) -> bool:
        """Bring the slots up, until a model answers, or will when it is asked; False: told to stop."""
        if self._lineup.loop is not None:
            self._lineup.loop.start()
        self._lives.start()
        if self._keeper is not None:
            self._keeper.start()
        while not self._ends and not self._rooms.registry.can_begin():
            time.sleep(_TICK)
            self._watch_link()
            self._reporter.answer()
            self._let_others_help()
            self._lives.look()
            failure = self._lives.failure()
            if failure is not None and not self._ends:
                raise failure
        return not self._ends

    def _start_workers(self) -> None:
        settings, rooms = self._settings, self._rooms
        is_whole = all(slot.most for slot in rooms.slots.slots)  # else there will be more when others have started
        if is_whole and rooms.slots.threads < settings.workers and "workers" in settings.model_fields_set:
            waits = "%s may run at once; %d worker threads would wait for each other"
            log.warning(waits, counted(rooms.slots.threads, "request"), settings.workers)
        rooms.pool.start(settings.workers, rooms.turns.run, rooms.endings.write, most=lambda: rooms.slots.threads)

    # --- serve ---

    def _serve(self) -> int:
        """The main thread's watch: signals, deadlines, the engine's and the link's lives, the interval's line."""
        while not self._ends:
            time.sleep(_TICK)
            self._lives.look()
            self._rooms.overdue.look()
            loss = self._lives.lost_here()
            if loss is not None:
                log.error("the engine is given up: %s", loss)
                if not any(model.may_serve for model in self._rooms.registry.models.values()):
                    self._enter(Phase.DEAD)
                return Exit.FAILED  # what other models have in hand is drained before
            self._readiness.look()
            self._watch_link()
            self._reporter.look()
        return Exit.OK

    def _watch_link(self) -> None:
        if self._bus.link.fatal is not None:
            raise self._bus.link.fatal
        if not self._bus.link.is_alive:
            raise BrokerError("the network thread has died")
        self._bus.watch_hearing()
        self._trim()

    def _trim(self) -> None:
        """The network thread does it, but where it waits for a connection."""
        if not self._bus.link.is_up:
            self._rooms.sender.trim()

    # --- shutdown; see the module's docstring for the order ---

    def _shutdown(self, status: int) -> int:
        guard = self._start_guard(status)
        deadline = time.monotonic() + self._settings.drain_timeout
        self._leave_group(deadline)
        self._close_admission()
        self._drain(deadline)
        join_by = time.monotonic() + _JOIN
        self._rooms.intake.stop(_JOIN)
        self._end_all()  # one may have passed the gate just before it closed
        self._rooms.pool.stop(max(0.0, join_by - time.monotonic()))
        self._rooms.endings.stop(max(0.0, join_by - time.monotonic()))
        for job in self._rooms.in_flight.all():  # its thread hangs
            self._rooms.endings.write(job)
        if self._tracer is not None:
            self._tracer.finish()  # it takes its time beside all that follows
        self._bus.announce("offline")
        if not self._flush(deadline) and self._rooms.sender.owes(0):
            log.warning("not every reply reached the broker")
        self._bus.close(_DISCONNECT)
        if self._membership is not None:
            self._membership.stop(_LEAVE_STORE)
        self._rooms.acknowledgements.close()
        if self._http is not None:
            self._http.stop(0)  # it ends while the engines do
        engines_by = time.monotonic() + _ENGINE_STOP
        self._stop_engines(_ENGINE_STOP)
        if self._tracer is not None and not self._tracer.stop(max(0.0, engines_by - time.monotonic())):
            log.warning("not every span reached the collector of traces")
        guard.cancel()
        log.info("stopped")
        return self._exit_status(status)

    def _leave_group(self, deadline: float) -> None:
        """Nobody is to notice that this worker goes: its siblings have what would have come next."""
        if self._membership is None or self._phase is not Phase.READY:
            return
        if not self._forced and not self._bus.leave(min(_LEAVE_SHARE, max(0.0, deadline - time.monotonic()))):
            log.warning("the broker may still have requests for this worker; it keeps them for one of its id, or none")
        self._rooms.intake.stop(min(_JOIN, max(0.0, deadline - time.monotonic())))
        self._membership.stop_taking(min(_JOIN, max(0.0, deadline - time.monotonic())))

    def _close_admission(self) -> None:
        if self._phase is not Phase.DEAD:
            served = self._phase is Phase.READY
            self._enter(Phase.DRAINING)
            most = format_duration(self._settings.drain_timeout)
            if served:
                waits = "draining: %d in flight, for at most %s; a second signal ends at once"
                log.info(waits, len(self._rooms.in_flight), most)
            elif self._ends:
                log.info("stopping before the model is there, within %s; a second signal ends at once", most)
        self._bus.announce("draining")

    def _drain(self, deadline: float) -> None:
        """Let requests in flight finish; end what is left with an error, never with half an answer."""
        while self._is_patient(deadline) and not self._rooms.in_flight.wait_empty(_TICK):
            self._lives.look()
            self._rooms.overdue.look()
            self._trim()
            self._reporter.answer()
        self._end_all()

    def _flush(self, deadline: float) -> bool:
        """Let the last replies leave; the farewell alone is no reason to wait long. Whether all left."""
        least = time.monotonic() + _FLUSH
        while not self._rooms.sender.flush(_TICK):
            self._trim()
            wanted = self._is_patient(deadline) and self._rooms.sender.owes(2 * self._settings.keepalive)
            if not wanted and time.monotonic() > least:
                return False
        return True

    def _is_patient(self, deadline: float) -> bool:
        """Whether there is time, nobody forces the end, and there are an engine to answer and a broker to hear it."""
        lost = self._phase is Phase.DEAD or self._bus.link.fatal is not None
        return time.monotonic() < deadline and not self._forced and not lost

    def _end_all(self) -> None:
        if self._membership is not None:
            self._membership.hand_over()
            return
        failure = Failure("engine_unavailable" if self._phase is Phase.DEAD else "shutting_down")
        for job in self._rooms.in_flight.all():
            if job.mark(failure) and self._rooms.queue.remove(job):
                self._rooms.endings.later(job)

    def _stop_engines(self, timeout: float) -> None:
        """Within `timeout` seconds: all engines and servers side by side, then the loop that they end on."""
        deadline = time.monotonic() + timeout
        if self._lineup.loop is not None:
            timeout = max(0.0, timeout - _LOOP_STOP)
        keeper = threading.Thread(target=self._stop_keeper, args=(timeout,), name="slot-keeper-stop", daemon=True)
        keeper.start()
        self._lives.stop(timeout)
        keeper.join(max(0.0, deadline - time.monotonic()))
        if self._lineup.loop is not None:
            self._lineup.loop.stop(max(0.0, deadline - time.monotonic()))

    def _stop_keeper(self, timeout: float) -> None:
        if self._keeper is not None:
            self._keeper.stop(timeout)

    def _start_guard(self, status: int) -> threading.Timer:
        """The last resort: whatever hangs, the process ends within the promised time."""

        def give_up() -> None:
            log.error("the shutdown hangs; ending the process")
            self._stop_engines(0)
            os._exit(status or Exit.FAILED)

        guard = threading.Timer(self._settings.drain_timeout + _GRACE, give_up)
        guard.name, guard.daemon = "shutdown-guard", True
        guard.start()
        return guard

    def _exit_status(self, status: int) -> int:
        return Exit.INTERRUPTED if self._forced and not status else status

    # --- signals and the gate ---

    def _handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def _drain_asked(self) -> None:
        """As the first signal, which a supervisor may send all the same: that one forces nothing yet."""
        self._is_asked_to_leave = True

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        """The first one drains, a second one forces."""
        self._signals += 1
        # Nothing else here, no logging and no event: the handler may interrupt the very code that holds their locks.

    @property
    def _ends(self) -> bool:
        """Whether somebody has told this worker to."""
        return self._signals > 0 or self._is_asked_to_leave

    @property
    def _forced(self) -> bool:
        return self._signals > 1
