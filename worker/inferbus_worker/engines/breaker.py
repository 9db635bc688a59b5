"""Leaves a slot alone that fails, and tries now and then whether it is well again.

    closed ──errors, silence, a leaked slot──> open ──its time is over──> half-open: one probe of one token
      ^                                         ^                            │              │
      └──────────────── the probe is answered ──┼────────────────────────────┘              │
                                                └──────────────── the probe fails ──────────┘

What opens it on errors:

- Five failures in a row. One request that no server can digest fails three times, since it is tried thrice; that must
  not take the slot from all the others. And a server that has died under load comes to five at once.
- More than half of at least ten in ten seconds: a server that fails most of the time is found out though some answers
  lie between. Below ten a share says nothing.

An open breaker is tried again after a second, then two, four, … thirty, each with up to as much again at random, so
that the slots of many workers do not come back to one server at the same moment. A slot that opens again within half a
minute of its last opening's end goes on where it was: one that answers probes and fails requests must not be back each
second.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final, Literal

from inferbus_client.shown import shown_in_line
from inferbus_worker.engines.recent import RecentCounts

log = logging.getLogger("inferbus.slots")

BreakerState = Literal["closed", "open", "half-open"]

_IN_A_ROW: Final = 5
_ENOUGH: Final = 10
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
#: A slot that has been well for so long begins with the first pause again.
_WELL: Final = 30.0
#: A probe that nobody has told the end of by then is taken for lost, and another one is due.
_PROBE_LOST: Final = 60.0
_MAX_REASON: Final = 200


class Breaker:
    """One slot's. Any thread may use it; it has a lock of its own, and never waits but for that.

    A backend's refusals (429, 529, a 503 that names a time) are no failures: they say that it is well and has enough
    to do, which is for the slot's limit.

    Args:
        name: the slot's, for the log.
        clock: monotonic seconds.
        uniform: a random number in [0, 1).
    """

    def __init__(
        self,
        name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._name = name
        self._clock = clock
        self._uniform = uniform
        self._lock = threading.Lock()
        self._state: BreakerState = "closed"
        #: Whether requests may run here. It is asked several times for each of them.
        self.is_closed = True
        self._recent: RecentCounts[Literal["well", "failed"]] = RecentCounts("well", "failed", clock=clock)
        self._in_a_row = 0
        self._pause = _FIRST_PAUSE
        self._closed_at = float("-inf")
        #: When the next probe is due: the pause is over, or the last probe is lost.
        self._probe_at = 0.0

    @property
    def state(self) -> BreakerState:
        return self._state

    @property
    def retry_after(self) -> float:
        """Seconds until the next probe; 0 while closed, or when it is due."""
        with self._lock:
            return 0.0 if self._state == "closed" else max(self._probe_at - self._clock(), 0.0)

    def may_probe(self) -> bool:
        """True once, when a probe is due: the caller asks one token of the slot, and tells how that went.

        It tells by `succeeded` or `failed`, as of any other request.
        """
        with self._lock:
            if self._state == "closed" or self._clock() < self._probe_at:
                return False
            self._probe_at = self._clock() + _PROBE_LOST
            self._become("half-open", "its pause is over: one token is asked of it")
            return True

    def succeeded(self) -> None:
        """A request, or the probe, was answered. What was begun before it opened and ends well now closes nothing."""
        with self._lock:
            if self._state == "closed":
                self._in_a_row = 0
                self._recent.add("well")
            elif self._state == "half-open":
                self._closed_at = self._clock()
                self._begin_anew()
                self._become("closed", "it answers again")

    def failed(self, reason: str) -> None:
        """A request, or the probe, has failed by the slot's own doing.

        Args:
            reason: for the log; nothing of the request.
        """
        with self._lock:
            if self._state == "half-open":
                self._open(reason)
            elif self._state == "closed":
                self._in_a_row += 1
                self._recent.add("failed")
                if (why := self._too_many()) is not None:
                    self._open(f"{why}, the last: {reason}")

    def trip(self, reason: str) -> None:
        """Open it at once: the slot keeps silent, or goes on with what was given up."""
        with self._lock:
            if self._state != "open":
                self._open(reason)

    def _too_many(self) -> str | None:
        if self._in_a_row >= _IN_A_ROW:
            return f"{self._in_a_row} failures in a row"
        failed = self._recent["failed"]
        every = failed + self._recent["well"]
        if every >= _ENOUGH and failed * 2 > every:
            return f"{failed} of the last {every} requests failed"
        return None

    def _open(self, reason: str) -> None:
        now = self._clock()
        # After a probe that failed it goes on as well: the slot was not well in between.
        if self._state == "half-open" or now - self._closed_at < _WELL:
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        else:
            self._pause = _FIRST_PAUSE
        pause = self._pause * (1 + self._uniform())
        self._probe_at = now + pause
        self._begin_anew()
        self._become("open", f"{shown_in_line(reason)[:_MAX_REASON]}; it is left alone for {pause:.1f} s")

    def _begin_anew(self) -> None:
        self._in_a_row = 0
        self._recent.clear()

    def _become(self, state: BreakerState, reason: str) -> None:
        if state != self._state:
            log.info("%s: breaker %s -> %s: %s", self._name, self._state, state, reason)
        self._state, self.is_closed = state, state == "closed"
