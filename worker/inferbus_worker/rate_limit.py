"""A sliding window per key, on an injected monotonic clock.

The exact window, not an approximation by buckets: the times of the last `limit` requests are kept, and the oldest of
them decides. Memory is bounded by the number of keys; the least recently used key is forgotten first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

from cachetools import TTLCache

from inferbus_worker.settings import RateLimit


class RateLimiter:
    """Says yes to at most `rate.limit` requests of one key in any `rate.window` seconds."""

    def __init__(
        self, rate: RateLimit | None, *, clock: Callable[[], float] = time.monotonic, max_keys: int = 100_000
    ) -> None:
        self._rate = rate
        self._clock = clock
        window = rate.window if rate else 1.0
        # A key untouched for a whole window has nothing left that counts.
        self._times: TTLCache[Hashable, list[float]] = TTLCache(max_keys, window, timer=clock)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._times)

    def admit(self, key: Hashable) -> float | None:
        """Count a request of `key`, or refuse it uncounted.

        Returns:
            None: admitted. Otherwise the seconds until the next one would be.
        """
        if self._rate is None:
            return None
        now = self._clock()
        with self._lock:
            times = self._times.get(key)
            if times is None:
                times = []  # no deque: the smallest takes 760 bytes, and most keys are seen once or twice
            if len(times) == self._rate.limit:
                if now - times[0] < self._rate.window:
                    return times[0] + self._rate.window - now
                del times[0]
            times.append(now)
            self._times[key] = times  # also renews the key's time to live
        return None
