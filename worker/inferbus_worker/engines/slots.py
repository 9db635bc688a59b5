"""Who runs what: which slot of its model a request gets.

A slot is free while it is ready, its breaker is closed, its backend has not asked to be left alone, and it has fewer
requests under way than its limit. Of a model's free slots a request gets the one that is fullest last, in proportion to
its limit; then the one on the less loaded host; then the one used last, whose caches are warm. A session prefers the
slot that served it last, unless that is clearly busier.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from cachetools import LRUCache

from inferbus_worker.engines.base import (
    BackendError,
    CancelledGenerationError,
    EngineDeadError,
    EngineError,
    Generation,
)
from inferbus_worker.engines.slot import Model, Slot

log = logging.getLogger("inferbus.slots")

#: How much fuller the slot that served a session last may be than the emptiest one, as a share of its limit.
_CLEARLY_BUSIER: Final = 0.25
_REMEMBERED_SESSIONS: Final = 100_000


class Tenant(Protocol):
    """What a slot is given to: a job.

    Attributes:
        model: the key of its model.
        attempts: the names of the slots that have begun to answer it, one for each time.
        may_repeat_at: from when on a slot may have it that has failed it before, on the table's clock.
        waits_since: when it last began to wait.
        lease: the slot that it has.
    """

    model: str
    attempts: list[str]
    may_repeat_at: float
    waits_since: float
    lease: Lease | None

    @property
    def key(self) -> Hashable:
        """The session that it belongs to."""
        ...


class Lease:
    """A slot, held by one request from the taking to the end of its answer.

    Attributes:
        slot: which.
        taken_at: when it was taken, on the table's clock.
        waited: seconds from when its request could have run until then.
        is_retry: whether it is not the request's first attempt, here or elsewhere.
        first_token_at: when the answer began.
        grew_at: when it last grew, or was asked for; of an engine in this process nobody looks.
        generation: what answers, from when it has been asked until it has.
    """

    __slots__ = (
        "_given_up",
        "_is_over",
        "_table",
        "first_token_at",
        "generation",
        "grew_at",
        "is_retry",
        "slot",
        "taken_at",
        "waited",
    )

    def __init__(self, table: SlotTable, slot: Slot, taken_at: float, waited: float, *, is_retry: bool) -> None:
        self._table = table
        self._given_up: str | None = None
        self.slot = slot
        self.taken_at = self.grew_at = taken_at
        self.waited = waited
        self.is_retry = is_retry
        self.first_token_at: float | None = None
        self._is_over = False
        self.generation: Generation | None = None

    def grows(self, now: float) -> None:
        """More of the answer has come. In the engine's thread."""
        if not self.slot.is_here:
            self.grew_at = now
            self.slot.pieces += 1

    def give_up(self, reason: str) -> None:
        """Wait no more for an answer that does not come: its request may be tried again, or fails."""
        generation = self.generation
        if generation is not None:  # a later one than the last time, perhaps: a prompt that was too long is asked again
            self._given_up = self._given_up or reason
            generation.cancel()

    def reason(self, error: EngineError) -> EngineError:
        """What has failed the request, where the engine said `error`."""
        if self._given_up is None or not isinstance(error, CancelledGenerationError):
            return error
        return EngineDeadError(self._given_up) if self.slot.is_here else BackendError(self._given_up, "timeout")

    def end(self, error: BaseException | None = None) -> None:
        """Give the slot back, and say how it went. For its request's thread; without effect a second time.

        Args:
            error: what the engine, or anybody else, raised.
        """
        if not self._is_over:
            self._is_over, self.generation = True, None
            self._table.release(self, error)


class SlotTable:
    """Who runs what. Any thread may use it; nothing here waits.

    Args:
        models: by key.
        max_threads: how many requests may run at once, whatever the slots allow; None: as many as these do.
        clock: a monotonic one.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        *,
        max_threads: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.models = models
        self._max_threads = max_threads
        self._clock = clock
        self._lock = threading.Lock()
        self._active = 0
        self._hosts: Counter[str] = Counter()
        self._served_by: LRUCache[Hashable, Slot] = LRUCache(_REMEMBERED_SESSIONS)
        #: Called when a request has given its slot back, under no lock.
        self.when_free: Callable[[], None] = lambda: None

    @property
    def slots(self) -> Iterable[Slot]:
        return (slot for model in self.models.values() for slot in model.slots)

    @property
    def active(self) -> int:
        """Requests under way now."""
        return self._active

    @property
    def threads(self) -> int:
        """How many threads there may be to run them; 0 while no slot has been ready."""
        most = sum(slot.most for slot in self.slots)
        return most if self._max_threads is None else min(most, self._max_threads)

    @property
    def size(self) -> int:
        """How many requests may run at once."""
        return min(self.threads, sum(model.limit for model in self.models.values()))

    def of(self, model: str) -> tuple[int, int]:
        """A model's requests under way now, and how many may be."""
        found = self.models[model]
        # Without a bound of their own there are threads for all that the slots may have.
        limit = found.limit if self._max_threads is None else min(found.limit, self.threads)
        return found.active, limit

    def has_free(self, model: str) -> bool:
        """See `flow.places.Places`."""
        found = self.models[model]
        for slot in found.slots:
            if slot.is_free:
                return self._max_threads is None or self._leaves_threads(found)
        return False

    def free(self, model: str) -> int:
        """See `flow.places.Places`."""
        found = self.models[model]
        places = sum(slot.limit.value - slot.active for slot in found.slots if slot.is_free)
        if self._max_threads is None or not places or not self._leaves_threads(found):
            return places if self._max_threads is None else 0
        return min(places, max(self.threads - self._active - self._idle_beside(found), 1))

    def acquire(self, tenant: Tenant) -> bool:
        """See `flow.places.Places`."""
        model = self.models[tenant.model]
        with self._lock:
            slot = self._chosen(model, tenant)
            if slot is None:
                return False
            now = self._clock()
            slot.active += 1
            slot.last_used = now
            self._active += 1
            if slot.host:
                self._hosts[slot.host] += 1
            if len(model.slots) > 1:
                self._served_by[tenant.key] = slot
            lease = tenant.lease = Lease(self, slot, now, now - tenant.waits_since, is_retry=bool(tenant.attempts))
            tenant.attempts.append(slot.name)
            if not slot.is_here:
                slot.leases.add(lease)
        log.debug("%s: taken, %d at once", slot.name, slot.active)
        return True

    def release(self, lease: Lease, error: BaseException | None) -> None:
        """See `Lease.end`. Whatever is raised on the way, the slot is free."""
        slot, now = lease.slot, self._clock()
        first_token = None if lease.first_token_at is None else lease.first_token_at - lease.taken_at
        fault: str | None = "error"
        try:
            if error is None:
                slot.answered(first_token)
                fault = None
            else:
                fault = slot.failed(error)
        finally:
            with self._lock:
                slot.active -= 1
                slot.last_used = now
                self._active -= 1
                if slot.host:
                    self._hosts[slot.host] -= 1
                if not slot.is_here:
                    slot.leases.discard(lease)
            slot.figures.ended(now - lease.taken_at, lease.waited, first_token, fault, is_retry=lease.is_retry)
            self.when_free()
        log.debug("%s: given back after %.3f s (%s)", slot.name, now - lease.taken_at, fault or "well")

    def active_in(self, slot: Slot) -> int:
        """How many requests a slot has; none is given to it meanwhile."""
        with self._lock:
            return slot.active

    def others(self, slot: Slot, tenant: Tenant) -> bool:
        """Whether another slot of the model, which has not failed this request, may serve it."""
        return any(other.may_serve and other.name not in tenant.attempts for other in slot.model.slots)

    def _chosen(self, model: Model, tenant: Tenant) -> Slot | None:
        if self._max_threads is not None and not self._leaves_threads(model):
            return None
        free = [slot for slot in model.slots if slot.is_free]
        if not free:
            return None
        fresh = [slot for slot in free if slot.name not in tenant.attempts] if tenant.attempts else free
        if fresh:
            slot = self._best(fresh, tenant) if len(fresh) > 1 else fresh[0]
            if not slot.is_here:
                slot.budget.first()
            return slot
        if self._clock() < tenant.may_repeat_at:
            return None
        slot = self._best(free, tenant)
        return slot if slot.budget.take() else None

    def _best(self, free: Sequence[Slot], tenant: Tenant) -> Slot:
        best = min(free, key=lambda slot: (slot.load, self._hosts[slot.host], -slot.last_used))
        before = self._served_by.get(tenant.key)
        if before is not None and before in free and before.load <= best.load + _CLEARLY_BUSIER:
            return before
        return best

    def _leaves_threads(self, model: Model) -> bool:
        """Whether one more request for it leaves a thread to each model that has none: no slow one takes them all.

        Nor is there one more where all are busy, for a model that could not answer while they were given away.
        """
        if self._max_threads is not None and self._active >= self._max_threads:
            return False
        return not model.active or self._active + self._idle_beside(model) < self.threads

    def _idle_beside(self, model: Model) -> int:
        """How many other models could answer and have no request."""
        return sum(1 for other in self.models.values() if other is not model and other.may_serve and not other.active)
