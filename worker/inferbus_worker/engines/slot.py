"""A place that serves a model, and a model: the name under which its places are asked for."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal

from inferbus_client.contract.presence import SlotStats
from inferbus_worker.engines.backoff import jittered_pause
from inferbus_worker.engines.base import (
    BackendError,
    CancelledGenerationError,
    ContextTooLongError,
    Engine,
    EngineError,
    GenerationTimeoutError,
    InvalidCallError,
)
from inferbus_worker.engines.breaker import Breaker
from inferbus_worker.engines.figures import SlotFigures
from inferbus_worker.engines.limit import AdaptiveLimit, FixedLimit, Limit
from inferbus_worker.engines.retry_budget import RetryBudget
from inferbus_worker.settings.models import Concurrency, SlotSettings

if TYPE_CHECKING:
    from inferbus_worker.engines.slots import Lease

log = logging.getLogger("inferbus.slots")

#: `down` is one whose start has failed, and is tried again; `stopped` one that starts when its model is asked for.
SlotState = Literal["starting", "ready", "stopped", "down", "dead"]

#: What a backend may ask at most to be left alone for, in seconds; and what it gets where it names no time.
_LONGEST_PAUSE: Final = 300.0
_FIRST_PAUSE: Final = 0.25
_LONGEST_BACKOFF: Final = 30.0
#: Ends of a generation that say nothing against the engine.
_REQUESTERS: Final = (CancelledGenerationError, ContextTooLongError, InvalidCallError, GenerationTimeoutError)


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
        leases: who has it; of an engine in this process nobody looks, and they are not kept.
        pieces: how often an answer has grown there; of an engine in this process nobody counts.
        forms_given_up: answers in a given form that nobody waited for any more before they had begun.
        paused_until: when its backend may be asked again, on the table's clock.
        again_at: when a start that has failed is tried again, on the table's clock.
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
        self.again_at = 0.0
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
    def retry_after(self) -> float:
        """Seconds until it may answer again: 0 where nobody knows, infinite for one that never will."""
        if self.state == "dead":
            return math.inf
        if self.state == "down":
            return max(self.again_at - self._clock(), 0.0)
        # A probe that is under way tells at any moment.
        left_alone = self.breaker.retry_after if self.breaker.state == "open" else 0.0
        return max(self.pause_left, left_alone)

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
        """A request was answered, its first token so many seconds after it was sent."""
        self.limit.answered(first_token, self.active)
        if not self.is_here:
            self._refused_in_a_row = 0
            self.breaker.succeeded()
            self.limit.headroom(self.engine.headroom)

    def failed(self, error: BaseException) -> str | None:
        """A request ended in an error; the fault that counts, None where the slot has none."""
        if isinstance(error, BackendError):
            if error.is_refusal:
                self.refused(error)
            else:
                self.breaker.failed(str(error))
            return error.fault
        if isinstance(error, _REQUESTERS):
            return None
        if not self.is_here and isinstance(error, EngineError):
            self.breaker.failed(str(error) or type(error).__name__)
        return "error"

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
        """Seconds until the first of its slots may answer again; see `Slot.retry_after`."""
        return min((slot.retry_after for slot in self.slots), default=math.inf)

    @property
    def state(self) -> str:
        """For presence."""
        if self.may_serve:
            return "ready"
        if not self.slots:
            return "elsewhere"
        if any(slot.state == "starting" for slot in self.slots):
            return "starting"
        return "stopped" if any(slot.state == "stopped" for slot in self.slots) else "unavailable"

    @property
    def counting(self) -> Engine:
        """The engine that counts tokens for it: of a slot that serves, if there is one."""
        return next((slot for slot in self.slots if slot.may_serve), self.slots[0]).engine
