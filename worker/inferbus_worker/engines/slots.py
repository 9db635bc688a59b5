"""Who runs what: the slots of each model, and which one a request gets.

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
from typing import Final, Literal, Protocol

from cachetools import LRUCache

from inferbus_client.contract.presence import SlotStats
from inferbus_worker.engines.backoff import jittered_pause
from inferbus_worker.engines.base import (
    BackendError,
    CancelledGenerationError,
    ContextTooLongError,
    Engine,
    EngineDeadError,
    EngineError,
    Generation,
    GenerationTimeoutError,
    InvalidCallError,
)
from inferbus_worker.engines.breaker import Breaker
from inferbus_worker.engines.figures import SlotFigures
from inferbus_worker.engines.limit import AdaptiveLimit, FixedLimit, Limit
from inferbus_worker.engines.retry_budget import RetryBudget
from inferbus_worker.settings.models import Concurrency, SlotSettings

log = logging.getLogger("inferbus.slots")

#: `down` is one whose start has failed, and is tried again; `stopped` one that starts when its model is asked for.
SlotState = Literal["starting", "ready", "stopped", "down", "dead"]

#: How much fuller the slot that served a session last may be than the emptiest one, as a share of its limit.
_CLEARLY_BUSIER: Final = 0.25
_REMEMBERED_SESSIONS: Final = 100_000
#: What a backend may ask at most to be left alone for, in seconds; and what it gets where it names no time.
_LONGEST_PAUSE: Final = 300.0
_FIRST_PAUSE: Final = 0.25
_LONGEST_BACKOFF: Final = 30.0
#: Faults of a backend that is well, and has enough to do.
REFUSALS: Final = frozenset({"429", "503", "529"})
#: Ends of a generation that say nothing against the engine.
_REQUESTERS: Final = (CancelledGenerationError, ContextTooLongError, InvalidCallError, GenerationTimeoutError)


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


class Slot:
    """One place that serves a model.

    Attributes:
        model: which.
        name: for people: `model/backend`, with a number where there are several of them.
        host: where it runs.
        is_here: whether its engine is in this process, and ends with it.
        settings: what the file says of it; None where it is the only one of a worker without `models:`.
        concurrency: what it is told to have at once; `auto`: to find it out; None: what its engine says.
        limit: how many requests it may have at once.
        most: how many it may ever have; of an engine in this process 0 until that is known.
        is_open: whether the keeper lets it have requests, where its server is ours to start and stop.
        state: see `SlotState`.
        active: how many it has.
        leases: who has it.
        pieces: how often an answer has grown there; of an engine in this process nobody counts.
        forms_given_up: answers in a given form that nobody waited for any more before they had begun.
        paused_until: when its backend may be asked again, on the table's clock.
        last_used: when it was last taken, or given back.
    """

    def __init__(
        self,
        model: Model,
        name: str,
        engine: Engine,
        settings: SlotSettings | None = None,
        *,
        concurrency: Concurrency | None = None,
        host: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.name = name
        self.engine = engine
        self.settings = settings
        self.concurrency = concurrency
        self.host = host
        self.is_here = settings is None or settings.engine is not None
        self.limit: Limit = FixedLimit(0)
        self.most = 0
        self.is_open: Callable[[], bool] | None = None
        self.state: SlotState = "stopped"
        self.breaker = Breaker(name, clock=clock)
        self.budget = RetryBudget(clock=clock)
        self.figures = SlotFigures()
        self.active = 0
        self.leases: set[Lease] = set()
        self.pieces = 0
        self.forms_given_up = 0
        self.paused_until = 0.0
        self.last_used = 0.0
        self._clock = clock
        self._refused_in_a_row = 0

    @property
    def backend(self) -> str:
        return "vllm" if self.settings is None else str(self.settings.backend or self.settings.engine)

    @property
    def may_serve(self) -> bool:
        """Whether it answers now, be it after others."""
        return self.state == "ready" and (self.is_here or self.breaker.is_closed)

    @property
    def will_serve(self) -> bool:
        """Whether it answers now, or as soon as it has started."""
        return self.may_serve or self.state in {"starting", "stopped"}

    @property
    def is_free(self) -> bool:
        """Whether one more request may run here."""
        if self.state != "ready" or self.active >= self.limit.value:
            return False
        if self.is_here:
            return True
        if not self.breaker.is_closed:
            return False
        if self.is_open is not None and not self.is_open():
            return False
        return not self.paused_until or self.paused_until <= self._clock()

    @property
    def pause_left(self) -> float:
        """Seconds until its backend may be asked again."""
        return max(self.paused_until - self._clock(), 0.0) if self.paused_until else 0.0

    @property
    def load(self) -> float:
        """What it has of what it may have."""
        return self.active / max(self.limit.value, 1)

    def became_ready(self) -> None:
        """Its engine has started and answers."""
        natural = self.engine.capacity
        if self.concurrency == "auto":
            self.limit = AdaptiveLimit(self.name, natural, clock=self._clock)
        else:
            self.limit = FixedLimit(self.concurrency or natural)
        if not self.model.may_serve:
            self.model.served_since = self._clock()
        self.most = max(natural if self.concurrency == "auto" else self.limit.value, 1)
        self.state = "ready"
        many = self.limit.value
        log.info("%s: ready, for %d request%s at once", self.name, many, "s" * (many != 1))

    def refused(self, error: BackendError) -> None:
        """Its backend has enough to do, and is left alone for as long as it says, else longer each time."""
        self._refused_in_a_row += 1
        self.limit.refused(error.fault)
        pause = error.retry_after
        if pause is None:
            pause = jittered_pause(_FIRST_PAUSE, self._refused_in_a_row, _LONGEST_BACKOFF)
        pause = min(max(pause, 0.0), _LONGEST_PAUSE)
        self.paused_until = max(self.paused_until, self._clock() + pause)
        log.debug("%s: paused for %.1f s: the backend refused (%s)", self.name, pause, error.fault)

    def answered(self, first_token: float | None) -> None:
        """A request was answered."""
        self.limit.answered(first_token, self.active)
        if not self.is_here:
            self._refused_in_a_row = 0
            self.breaker.succeeded()
            self.limit.headroom(self.engine.headroom)

    def reading(self) -> SlotStats:
        """The figures as they stand."""
        return self.figures.reading(
            self.backend,
            self.state,
            active=self.active,
            limit=self.limit.value or None,
            breaker=self.breaker.state,
            headroom=self.engine.headroom,
            memory_declared=None if self.settings is None else self.settings.memory,
            memory_measured=self.engine.memory_bytes,
        )


class Model:
    """A name that requests and projects use.

    Attributes:
        key: by which the rooms know it; never changes.
        slots: the places that serve it.
        fallback: keys of the models that answer in its place while none of its slots can.
        served_since: when the first of its slots became ready that are, on its slots' clock.
    """

    def __init__(self, key: str, fallback: Sequence[str] = (), name: str | None = None) -> None:
        self.key = key
        self.fallback = tuple(fallback)
        self.slots: list[Slot] = []
        self.served_since = 0.0
        self._name = name

    @property
    def name(self) -> str:
        """What requests and people call it; without `models:`, what its engine does."""
        return self._name or self.slots[0].engine.model

    @property
    def limit(self) -> int:
        """How many requests its slots may have at once, now."""
        return sum([slot.limit.value for slot in self.slots if slot.may_serve])

    @property
    def active(self) -> int:
        return sum([slot.active for slot in self.slots])

    @property
    def may_serve(self) -> bool:
        """Whether it answers now."""
        return any(slot.may_serve for slot in self.slots)

    @property
    def will_serve(self) -> bool:
        """Whether a request for it that waits has something to wait for."""
        for slot in self.slots:  # noqa: SIM110
            if slot.will_serve:
                return True
        return False

    @property
    def is_starting(self) -> bool:
        """Whether it answers nothing yet, and will: a start is under way, or waits in line for memory."""
        return not self.may_serve and any(slot.state in {"starting", "stopped"} for slot in self.slots)

    @property
    def retry_after(self) -> float:
        """Seconds until one of its slots is tried again."""
        return min((slot.breaker.retry_after for slot in self.slots), default=0.0)

    @property
    def state(self) -> str:
        """For presence."""
        if self.may_serve:
            return "ready"
        if any(slot.state == "starting" for slot in self.slots):
            return "starting"
        return "stopped" if any(slot.state == "stopped" for slot in self.slots) else "unavailable"

    @property
    def counting(self) -> Engine:
        """The engine that counts tokens for it: of a slot that serves, if there is one."""
        return next((slot for slot in self.slots if slot.may_serve), self.slots[0]).engine


class Lease:
    """A slot, held by one request from the taking to the end of its answer.

    Attributes:
        slot: which.
        taken_at: when it was taken, on the table's clock.
        first_token_at: when the answer began.
        grew_at: when it last grew, or was asked for; of an engine in this process nobody looks.
        generation: what answers, once it has been asked.
    """

    __slots__ = ("_given_up", "_is_over", "_table", "first_token_at", "generation", "grew_at", "slot", "taken_at")

    def __init__(self, table: SlotTable, slot: Slot, taken_at: float) -> None:
        self._table = table
        self._given_up: str | None = None
        self.slot = slot
        self.taken_at = self.grew_at = taken_at
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
        if self.generation is not None and self._given_up is None:
            self._given_up = reason
            self.generation.cancel()

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
            self._is_over = True
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
        """See `flow.queue.Places`."""
        found = self.models[model]
        for slot in found.slots:
            if slot.is_free:
                return self._max_threads is None or self._leaves_threads(found)
        return False

    def free(self, model: str) -> int:
        """See `flow.queue.Places`."""
        found = self.models[model]
        places = sum(slot.limit.value - slot.active for slot in found.slots if slot.is_free)
        if self._max_threads is None or not places or not self._leaves_threads(found):
            return places if self._max_threads is None else 0
        return min(places, max(self.threads - self._active - self._idle_beside(found), 1))

    def acquire(self, tenant: Tenant) -> bool:
        """See `flow.queue.Places`."""
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
            slot.figures.acquired(now - tenant.waits_since, is_retry=bool(tenant.attempts))
            tenant.attempts.append(slot.name)
            tenant.lease = Lease(self, slot, now)
            slot.leases.add(tenant.lease)
        log.debug("%s: taken, %d at once", slot.name, slot.active)
        return True

    def release(self, lease: Lease, error: BaseException | None) -> None:
        """See `Lease.end`. Whatever is raised on the way, the slot is free."""
        slot, now = lease.slot, self._clock()
        first_token = None if lease.first_token_at is None else lease.first_token_at - lease.taken_at
        fault: str | None = "error"
        try:
            fault = _heard(slot, error, first_token)
        finally:
            with self._lock:
                slot.leases.discard(lease)
                slot.active -= 1
                slot.last_used = now
                self._active -= 1
                if slot.host:
                    self._hosts[slot.host] -= 1
            slot.figures.released(now - lease.taken_at, first_token, fault)
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
        """Whether one more request for it leaves a thread to each model that has none: no slow one takes them all."""
        return not model.active or self._active + self._idle_beside(model) < self.threads

    def _idle_beside(self, model: Model) -> int:
        """How many other models could answer and have no request."""
        return sum(1 for other in self.models.values() if other is not model and other.may_serve and not other.active)


def _heard(slot: Slot, error: BaseException | None, first_token: float | None) -> str | None:
    """Tell a slot how a request went in it; the fault that counts, None where it has none."""
    if error is None:
        slot.answered(first_token)
        return None
    if isinstance(error, BackendError):
        if error.fault in REFUSALS:
            slot.refused(error)
        else:
            slot.breaker.failed(str(error))
        return error.fault
    if isinstance(error, _REQUESTERS):
        return None
    if not slot.is_here and isinstance(error, EngineError):
        slot.breaker.failed(str(error) or type(error).__name__)
    return "error"
