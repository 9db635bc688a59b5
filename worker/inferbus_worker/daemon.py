"""The composition root: startup -> serve -> shutdown. The only place that makes the parts and handles signals.

The stop order, and why:

1. close admission, say `draining`: what comes now is refused at once, and supervisors and clients can see why;
2. drain: what was admitted finishes, for at most `drain_timeout`; what is left then ends as `shutting_down`;
3. join the worker threads: nobody makes replies any more;
4. say `offline`, then flush the sender: the last replies and the farewell leave while the link is still up, for as
   long as the drain might have taken;
5. disconnect in order: so the broker does not publish the Last Will;
6. stop the engine: last, since everything before may still need it.

A second signal skips the waiting. A guard ends the process if any step hangs.
"""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import threading
import time
from contextlib import closing
from enum import Enum
from types import FrameType
from typing import Final

from inferbus_client.contract.wire import Failure
from inferbus_client.errors import BrokerError, SettingsError
from inferbus_client.exits import Exit, exit_of
from inferbus_client.units import format_duration
from inferbus_worker import logs
from inferbus_worker.admission.addressing import Addressing
from inferbus_worker.admission.admission import Admission
from inferbus_worker.admission.limits import RateLimits
from inferbus_worker.admission.reception import Reception
from inferbus_worker.admission.token_budget import TokenBudget
from inferbus_worker.bus.acknowledgements import Acknowledgements
from inferbus_worker.bus.attempts import Attempts
from inferbus_worker.bus.connection import Bus, receive_maximum
from inferbus_worker.engines.base import Engine, EngineStartError
from inferbus_worker.engines.watchdog import Watchdog, probe
from inferbus_worker.flow.in_flight import InFlight
from inferbus_worker.flow.job import Job
from inferbus_worker.flow.meter import Meter
from inferbus_worker.flow.queue import RequestQueue
from inferbus_worker.flow.turn import TurnRunner
from inferbus_worker.flow.worker_pool import WorkerPool
from inferbus_worker.ops.reporter import Reporter
from inferbus_worker.replies.sender import Replies
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.memory.idempotency import RecentRequests
from inferbus_worker.state.memory.sessions import MemorySessions

log = logging.getLogger("inferbus.daemon")

_TICK: Final = 0.05
_JOIN: Final = 0.5
_FLUSH: Final = 0.5
_DISCONNECT: Final = 0.2
_ENGINE_STOP: Final = 0.5
#: The flush takes at least `_FLUSH`. Promise 4: the process ends within `drain_timeout` plus this.
_GRACE: Final = 1.9
_WARM_UP_TIMEOUT: Final = 120.0


class State(Enum):
    """Where the daemon is in its life."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    DEAD = "dead"


class Daemon:
    """One worker process: one engine, one bus, and the rooms between them."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._state = State.LOADING
        self._signals = 0
        self._build()

    def _build(self) -> None:
        settings = self._settings
        kept = _open_attempts(settings) if settings.ack == "after-reply" else None
        self._acknowledgements = Acknowledgements(
            self._acknowledge,
            attempts=kept,
            max_attempts=settings.max_attempts,
            at_once=receive_maximum(settings),
        )
        self._replies = Replies(
            qos=settings.reply_qos, max_bytes=settings.max_outbound_bytes, answered=self._acknowledgements.end
        )
        self._queue = RequestQueue(settings.queue_size, settings.projects, ageing=settings.ageing)
        self._in_flight = InFlight()
        self._turns = TurnRunner(self._engine, settings)
        self._meter = Meter(active=self._active)
        self._pool: WorkerPool | None = None
        self._build_rooms()

    def _build_rooms(self) -> None:
        """The way of a request from the bus to the queue, and what tells of it."""
        settings, queue, in_flight = self._settings, self._queue, self._in_flight
        sessions = MemorySessions(settings.max_sessions, settings.session_ttl, max_bytes=settings.max_history_bytes)
        recent = RecentRequests(settings.retry_memory_bytes, settings.retry_memory)
        limits, budget = RateLimits(settings), self._token_budget()
        addressing = Addressing(self._replies, settings.reply_topics, self._acknowledgements.receipt_of)
        admission = Admission(
            settings=settings,
            sessions=sessions,
            limits=limits,
            budget=budget,
            queue=queue,
            in_flight=in_flight,
            recent=recent,
            addressing=addressing,
            meter=self._meter,
            gate=self._closed,
        )
        self._reception = Reception(
            projects=settings.projects,
            admission=admission,
            addressing=addressing,
            in_flight=in_flight,
            queue=queue,
            acknowledgements=self._acknowledgements,
            users=settings.identity == "topic",
            max_held=receive_maximum(settings),
            max_held_bytes=settings.max_message_bytes,
        )
        if settings.ack == "after-reply":
            self._reception.hold()
        self._bus = Bus(
            settings,
            replies=self._replies,
            receive=self._reception.receive,
            asked=self._stats_asked,
            came_up=self._came_up,
            model=self._engine.model,
        )
        self._reporter = Reporter(
            settings,
            meter=self._meter,
            queue=queue,
            in_flight=in_flight,
            sessions=sessions,
            replies=self._replies,
            recent=recent,
            limits=limits,
            budget=budget,
            unreadable=lambda: self._bus.link.unreadable,
            publish=self._bus.publish_stats,
        )

    def _token_budget(self) -> TokenBudget | None:
        settings = self._settings
        if settings.token_budget is None:
            return None
        return TokenBudget(settings.token_budget, self._turns.most, max_keys=settings.rate_limit_sessions)

    def _acknowledge(self, ack_id: int) -> None:
        self._bus.link.acknowledge(ack_id)

    def _stats_asked(self) -> None:
        self._reporter.asked()

    def _came_up(self) -> None:
        self._reception.came_up(remembered=self._bus.link.session_present)

    def run(self) -> int:
        """Serve until a signal or a failure ends it.

        Returns:
            The exit status.
        """
        self._handle_signals()
        try:
            status = self._startup() or self._serve()
        except BrokerError as error:
            status = Exit.OK if self._signals else exit_of(error)
            if not self._signals:
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
        self._bus.start(self._is_stopped)
        log.info("connected to %s; loading %s", self._settings.broker, self._engine.model)
        if not self._load_engine():
            return Exit.OK
        self._start_workers()
        logs.be_discreet()
        self._state = State.READY
        self._bus.link.call(self._reception.release)
        self._bus.announce("ready", model=self._engine.model, capacity=len(self._pool or ()))
        log.info("ready: serving %s to %s", self._engine.model, ", ".join(self._settings.projects))
        return Exit.OK

    def _is_stopped(self) -> bool:
        """Whether a signal has come. While the bus looks who else is there, others may look too, and ask us."""
        self._reporter.answer()
        return self._signals > 0

    def _load_engine(self) -> bool:
        """Load and warm up, in a thread of its own so that a signal is heard meanwhile; False: told to stop."""
        failure: list[BaseException] = []

        def load() -> None:
            try:
                self._engine.start()
                self._warm_up()
            except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
                failure.append(error)

        loader = threading.Thread(target=load, name="engine-start", daemon=True)
        loader.start()
        while loader.is_alive() and not self._signals:
            loader.join(_TICK)
            self._watch_link()
            self._reporter.answer()
        if failure and not self._signals:
            raise failure[0]
        return not self._signals

    def _warm_up(self) -> None:
        """One real answer: `ready` means that the next one will come."""
        error = probe(self._engine, _WARM_UP_TIMEOUT)
        if error is not None:
            raise EngineStartError(f"the model loaded but does not answer: {error or type(error).__name__}") from error

    def _start_workers(self) -> None:
        settings, slots = self._settings, self._engine.capacity
        size = min(settings.workers, slots)
        if size < settings.workers:
            log.warning(
                "the engine runs %d requests at once; %d worker threads would wait for it", slots, settings.workers
            )
        self._meter.slots = size

        def run_turn(job: Job) -> None:
            self._acknowledgements.turn_begins(job.replies.address.receipt)
            self._turns.run(job)

        self._pool = WorkerPool(size, self._queue, run_turn)
        self._pool.start()

    # --- serve ---

    def _serve(self) -> int:
        """The main thread's watch: signals, deadlines, the engine's and the link's lives, the interval's line."""
        watchdog = Watchdog(
            self._engine,
            self._settings.engine_silence,
            active=self._active,
            finished=lambda: self._meter.finished,
            forms_given_up=lambda: self._meter.forms_given_up,
        )
        while not self._signals:
            time.sleep(_TICK)
            for job in self._queue.expired():
                self._expire(job)
            complaint = self._engine.death or watchdog.complaint()
            if complaint is not None:
                log.error("the engine is given up: %s", complaint)
                self._state = State.DEAD
                return Exit.FAILED
            self._watch_link()
            self._reporter.look()
        return Exit.OK

    def _expire(self, job: Job) -> None:
        """End a job whose deadline passed in the queue; one that runs is ended by its own thread."""
        if self._queue.remove(job):
            job.end(Failure("deadline_exceeded", "It passed while the request waited in the queue."))

    def _watch_link(self) -> None:
        if self._bus.link.fatal is not None:
            raise self._bus.link.fatal
        if not self._bus.link.is_alive:
            raise BrokerError("the network thread has died")
        self._bus.watch_hearing()

    # --- shutdown; see the module's docstring for the order ---

    def _shutdown(self, status: int) -> int:
        guard = self._start_guard(status)
        deadline = time.monotonic() + self._settings.drain_timeout
        self._close_admission()
        self._drain(deadline)
        if self._pool is not None:
            self._pool.stop(_JOIN)
        self._end_all()  # one may have passed the gate just before it closed
        self._bus.announce("offline")
        if not self._flush(deadline) and self._replies.owes(0):
            log.warning("not every reply reached the broker")
        self._bus.close(_DISCONNECT)
        self._acknowledgements.close()
        self._engine.stop(_ENGINE_STOP)
        guard.cancel()
        log.info("stopped")
        return self._exit_status(status)

    def _close_admission(self) -> None:
        if self._state is not State.DEAD:
            served, self._state = self._state is State.READY, State.DRAINING
            most = format_duration(self._settings.drain_timeout)
            if served:
                waits = "draining: %d in flight, for at most %s; a second signal ends at once"
                log.info(waits, len(self._in_flight), most)
            elif self._signals:
                log.info("stopping before the model is there, within %s; a second signal ends at once", most)
        self._bus.announce("draining")

    def _drain(self, deadline: float) -> None:
        """Let requests in flight finish; end what is left with an error, never with half an answer."""
        while self._is_patient(deadline) and not self._in_flight.wait_empty(_TICK):
            for job in self._queue.expired():
                self._expire(job)
            self._reporter.answer()
        self._end_all()

    def _flush(self, deadline: float) -> bool:
        """Let the last replies leave; the farewell alone is no reason to wait long. Whether all left."""
        least = time.monotonic() + _FLUSH
        while not self._replies.flush(_TICK):
            wanted = self._is_patient(deadline) and self._replies.owes(2 * self._settings.keepalive)
            if not wanted and time.monotonic() > least:
                return False
        return True

    def _is_patient(self, deadline: float) -> bool:
        """Whether there is time, nobody forces the end, and there are an engine to answer and a broker to hear it."""
        lost = self._state is State.DEAD or self._bus.link.fatal is not None
        return time.monotonic() < deadline and not self._forced and not lost

    def _end_all(self) -> None:
        failure = Failure("engine_unavailable" if self._state is State.DEAD else "shutting_down")
        for job in self._in_flight.all():
            self._queue.remove(job)
            job.end(failure)

    def _start_guard(self, status: int) -> threading.Timer:
        """The last resort: whatever hangs, the process ends within the promised time."""

        def give_up() -> None:
            log.error("the shutdown hangs; ending the process")
            self._engine.stop(0)
            os._exit(status or Exit.FAILED)

        guard = threading.Timer(self._settings.drain_timeout + _GRACE, give_up)
        guard.name, guard.daemon = "shutdown-guard", True
        guard.start()
        return guard

    def _exit_status(self, status: int) -> int:
        return Exit.INTERRUPTED if self._forced and not status else status

    def _active(self) -> int:
        """Turns under way now."""
        return 0 if self._pool is None else self._pool.active

    # --- signals and the gate ---

    def _handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        """The first one drains, a second one forces."""
        self._signals += 1
        # Nothing else here, no logging and no event: the handler may interrupt the very code that holds their locks.

    @property
    def _forced(self) -> bool:
        return self._signals > 1

    def _closed(self) -> Failure | None:
        """Why admission takes nothing now; None while it does."""
        if self._state is State.READY:
            return Failure("overloaded") if self._replies.congested else None
        return Failure("shutting_down" if self._state is State.DRAINING else "engine_unavailable")


def _open_attempts(settings: Settings) -> Attempts:
    """The counts on disk. A file that could never be used is a mistake; one that is locked for now is not."""
    file = settings.state_dir / f"{settings.worker_id}.sqlite"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=0)) as database:
            database.execute("PRAGMA schema_version").fetchone()
    except (OSError, sqlite3.Error) as error:
        if getattr(error, "sqlite_errorcode", None) not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise SettingsError(f"the state folder cannot be used ({file}): {error}") from None
    return Attempts(file)
