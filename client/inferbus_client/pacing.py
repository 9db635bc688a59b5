"""When to send: a minimum interval between sends, and backoff with jitter between attempts.

Both only compute a wait and never sleep, so that threads and event loops share them.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]


class Pacer:
    """Spaces sends by at least `interval` seconds, in the order in which they were reserved. Thread-safe."""

    def __init__(self, interval: float, clock: Clock = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._next = float("-inf")
        self._lock = threading.Lock()

    def reserve(self) -> float:
        """Take the next free slot; returns how many seconds away it is."""
        with self._lock:
            now = self._clock()
            slot = max(now, self._next)
            self._next = slot + self._interval
            return slot - now


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter, so that clients refused together do not return together.

    Attributes:
        base: the longest first wait, in seconds; it doubles with every attempt.
        cap: the longest wait ever, in seconds.
        uniform: a random number in [0, 1).
    """

    base: float = 0.5
    cap: float = 15.0
    uniform: Callable[[], float] = random.random

    def delay(self, attempt: int, retry_after: float | None = None) -> float:
        """Seconds to wait after attempt number `attempt` (from 0).

        Where the worker said `retry_after`, the jitter comes on top: coming earlier is certain to be refused.
        """
        jitter: float = self.uniform() * min(self.cap, self.base * 2.0 ** min(attempt, 32))
        return (retry_after or 0.0) + jitter
