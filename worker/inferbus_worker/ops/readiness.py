"""What presence says of the models: which of them answer, and how many requests run at once."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from inferbus_client.contract.presence import State
from inferbus_client.contract.wire import Failure
from inferbus_worker.engines.registry import Registry
from inferbus_worker.engines.slots import SlotTable

log = logging.getLogger("inferbus.daemon")

_WHY_CLOSED: Final = {"shutting_down": "draining", "engine_unavailable": "loading"}
#: Seconds between two presences that differ in their capacity alone: a limit that finds itself moves all the time.
_MOVES_EVERY: Final = 5.0


class Door(Protocol):
    """See `Gate`."""

    @property
    def reason(self) -> Failure | None:
        """Why nothing is taken now."""
        ...


class Line(Protocol):
    """See `Link`."""

    @property
    def is_up(self) -> bool:
        """Whether there is a connection to the broker."""
        ...


def missing(gate: Door, registry: Registry, link: Line, away: Callable[[], str | None] = lambda: None) -> list[str]:
    """What keeps the worker from answering requests, in words; nothing: it does. From any thread.

    Args:
        gate: whether it takes anything.
        registry: its models.
        link: to the broker.
        away: why the store of its group cannot be reached; None: it can, or there is none.
    """
    lacks = [] if link.is_up else ["no connection to the broker"]
    if (reason := away()) is not None:
        lacks.append(reason)
    if gate.reason is not None:
        lacks.append(_WHY_CLOSED.get(gate.reason.code, gate.reason.code))
    if not registry.will_serve:
        lacks += [f"{name}: {state}" for name, state in registry.states().items() if state != "ready"]
    return lacks


class Announce(Protocol):
    """See `Bus.announce`."""

    def __call__(
        self, state: State, *, model: str, capacity: int, models: Mapping[str, str], reason: str | None
    ) -> None:
        """Publish it."""
        ...


class Readiness:
    """Looked at by the main thread again and again.

    Args:
        registry: the models.
        slots: their slots.
        announce: publishes a presence.
        clock: monotonic seconds.
        away: why the store of its group cannot be reached; None: it can, or there is none.

    Attributes:
        states: what each model did when that was last announced, by name.
    """

    def __init__(
        self,
        registry: Registry,
        slots: SlotTable,
        announce: Announce,
        clock: Callable[[], float] = time.monotonic,
        *,
        away: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._registry = registry
        self._slots = slots
        self._announce = announce
        self._away = away
        self._reason: str | None = None
        self._clock = clock
        self._capacity = 0
        self._announced_at = -math.inf
        self.states: Mapping[str, str] = {}

    def look(self) -> None:
        """Announce what has changed: a model's state at once, the capacity now and then.

        While no model can answer, or the group's store is away, this is no worker that is ready.
        """
        states, capacity, now = self._registry.states(), self._slots.size, self._clock()
        reason = self._away()
        has_moved = capacity != self._capacity and now - self._announced_at >= _MOVES_EVERY
        if states == self.states and not has_moved and reason == self._reason:
            return
        state: State = "ready" if self._registry.will_serve and reason is None else "loading"
        if not self._registry.will_serve and states != self.states:
            log.warning("no model answers any more; requests are refused until one does")
        if reason != self._reason:
            log.warning("%s; requests are refused until it is back", reason) if reason else log.info(
                "the store is back"
            )
        self._reason = reason
        self.states, self._capacity, self._announced_at = states, capacity, now
        self._announce(state, model=self._registry.default.name, capacity=capacity, models=states, reason=reason)
