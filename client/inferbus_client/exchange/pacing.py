"""When to send: a minimum interval between the sends of a session, and backoff with jitter between attempts.

Both only compute a wait and never sleep, so that threads and event loops share them.
"""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]


class Pacer:
    """Spaces the sends of each session by at least `interval` seconds. Thread-safe.

    A slot is taken at the moment of sending, never ahead: who gives up while he waits for one leaves nothing behind.

    Args:
        interval: seconds; 0 lets everything go at once.
        clock: monotonic seconds.
        max_sessions: sessions that are remembered, of those that sent less than `interval` ago; beyond it the oldest
            may send early.
    """

    def __init__(self, interval: float, clock: Clock = time.monotonic, *, max_sessions: int = 10_000) -> None:
        self._interval = interval
        self._clock = clock
        self._max_sessions = max_sessions
        self._free_at: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, session: str | None) -> float:
        """Take the session's slot if it is free, which returns 0; else how many seconds away it is.

        What belongs to no session is not spaced.
        """
        if session is None or not self._interval:
            return 0.0
        with self._lock:
            now = self._clock()
            # Every interval is as long, so those that end first stand first.
            while self._free_at and next(iter(self._free_at.values())) <= now:
                self._free_at.popitem(last=False)
            if session in self._free_at:
                return self._free_at[session] - now
            self._free_at[session] = now + self._interval
            if len(self._free_at) > self._max_sessions:
                self._free_at.popitem(last=False)
            return 0.0


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
