"""Ends what waits in vain: its deadline has passed, no slot came in time, or nothing will serve its model any more."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from inferbus_client.contract.wire import Failure
from inferbus_worker.engines.registry import Registry
from inferbus_worker.engines.slot import Model
from inferbus_worker.flow.endings import Endings
from inferbus_worker.flow.in_flight import InFlight
from inferbus_worker.flow.job import Job
from inferbus_worker.flow.queue import RequestQueue
from inferbus_worker.seldom import Seldom

log = logging.getLogger("inferbus.slots")

#: Seconds after which to look again at a request whose model is starting.
_LOOK_AGAIN: Final = 1.0
#: Seconds that a request's thread has to ask the engine, once it has a slot.
_TO_ASK: Final = 1.0


class Overdue:
    """Looked at by the main thread again and again; never blocks it.

    Args:
        registry: the models.
        queue: where requests wait.
        in_flight: those that have not ended.
        endings: writes the end of those that wait no more.
        slot_timeout: seconds that a request may wait for a slot; None: any time. A model's start does not count.
        clock: a monotonic one.
    """

    def __init__(
        self,
        registry: Registry,
        queue: RequestQueue,
        in_flight: InFlight,
        endings: Endings,
        slot_timeout: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._queue = queue
        self._in_flight = in_flight
        self._endings = endings
        self._slot_timeout = slot_timeout
        self._clock = clock
        self._seldom = Seldom(log)

    def look(self) -> None:
        """End what waits in vain, and wake who can go on."""
        for model in self._registry.models.values():
            if any(slot.state == "dead" and slot.active for slot in model.slots):
                self._give_up(model)
            if not model.will_serve:
                self._leave(model)
        for job in self._queue.due():
            self._judge(job)
        self._queue.look()

    def _judge(self, job: Job) -> None:
        now = self._clock()
        if job.deadline is not None and now >= job.deadline:
            if self._queue.remove(job):
                job.expire()
                self._endings.later(job)
            return
        if self._slot_timeout is None:
            return
        model = self._registry.models[job.model]
        slot_by = max(job.waits_since, model.served_since) + self._slot_timeout
        if model.is_starting:
            slot_by = max(slot_by, now + _LOOK_AGAIN)
        if now < slot_by:
            job.wait_until(slot_by)
            self._queue.look_again(job)
        elif self._queue.remove(job):
            self._seldom.warning("a request for %s got no slot within %.0f s", model.name, self._slot_timeout)
            self._end(job, self._registry.without_slot(model))

    def _give_up(self, model: Model) -> None:
        """Wait no more for what an engine has that is lost, and may hang: others may answer what it has not begun."""
        now = self._clock()
        for job in self._in_flight.all():
            lease = job.lease
            if lease is None or lease.slot.model is not model or lease.slot.state != "dead":
                continue
            if lease.generation is not None:
                lease.give_up(f"{lease.slot.name} is lost")
            elif now - lease.taken_at >= _TO_ASK:  # its thread hangs on the way there
                job.mark(Failure("engine_unavailable"))

    def _leave(self, model: Model) -> None:
        """Nothing will serve a model's requests: those that wait go to another one, or end at once."""
        instead = self._registry.serving(model)
        for job in self._queue.waiting_for(model.key):
            if not self._queue.remove(job):
                continue
            if instead is None:
                self._end(job, self._registry.unavailable(model))
            else:
                self._in_flight.moved(job, instead.key)
                self._queue.put(job)
                # A mark that came meanwhile found it nowhere, and left it to us.
                if job.outcome is not None and self._queue.remove(job):
                    self._endings.later(job)

    def _end(self, job: Job, failure: Failure) -> None:
        job.mark(failure)
        self._endings.later(job)
