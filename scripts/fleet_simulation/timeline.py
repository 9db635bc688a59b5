"""Simulated time, and a server that does one thing after the other."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

Event = Callable[[], None]


class Timeline:
    """What is still to happen, the soonest first.

    Attributes:
        now: seconds since the beginning. Called, the timeline is a clock.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Event]] = []
        self._order = itertools.count()  # of what happens at the same time

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float, event: Event) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    def step(self) -> None:
        """Let the next thing happen."""
        self.now, _, event = heapq.heappop(self._events)
        event()


class Server:
    """Does what it is asked in the order in which it is asked.

    Attributes:
        busy: seconds of work that it was given.
        waits: how long each call waited for its turn.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._free_at = 0.0
        self.forget()

    def forget(self) -> None:
        """Count from here on."""
        self.busy = 0.0
        self.waits: list[float] = []

    def ask(self, cost: float, then: Event | None = None) -> None:
        """Take `cost` seconds for this, when its turn comes; `then` is what follows."""
        begins = max(self._timeline.now, self._free_at)
        self._free_at = begins + cost
        self.busy += cost
        self.waits.append(begins - self._timeline.now)
        if then is not None:
            self._timeline.after(self._free_at - self._timeline.now, then)
