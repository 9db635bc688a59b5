"""Sliding windows in this process, on an injected monotonic clock.

The exact window, not an approximation by buckets: the times of the last `limit` requests are kept, and the oldest of
them decides. Memory is bounded by the number of keys, of which each has at most `limit` times; the least recently used
key is forgotten first.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence

from cachetools import TTLCache

from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.state.protocols import Levels, Window

# The smallest deque takes 760 bytes, and most keys are seen once or twice; yet the head of a long list is dear to drop.
_LONGEST_LIST = 64

Times = list[float] | deque[float]


class RateLimiter:
    """Lets at most `rate.limit` requests of one key through in any `rate.window` seconds.

    For one thread at a time. To look, to ask and to count are three steps, so that several limiters decide together.
    """

    def __init__(
        self, rate: RateLimit, *, clock: Callable[[], float] = time.monotonic, max_keys: int = 100_000
    ) -> None:
        self._limit, self._window = rate.limit, rate.window
        self._new: Callable[[], Times] = list if rate.limit <= _LONGEST_LIST else deque
        # A key untouched for a whole window has nothing left that counts.
        self._times: TTLCache[Hashable, Times] = TTLCache(max_keys, rate.window, timer=clock)

    def __len__(self) -> int:
        return len(self._times)

    def times(self, key: Hashable) -> Times:
        """When the latest requests of `key` came, oldest first; at most `limit` of them."""
        times = self._times.get(key)
        return self._new() if times is None else times

    def seconds_until_room(self, times: Times, now: float) -> float:
        """Seconds until a request of the key with these times would be let through; 0: now."""
        if len(times) < self._limit:
            return 0.0
        return max(times[0] + self._window - now, 0.0)

    def count(self, key: Hashable, times: Times, now: float) -> None:
        """Count a request of `key`, where `seconds_until_room` are none."""
        if len(times) == self._limit:
            del times[0]
        times.append(now)
        self._times[key] = times  # also renews the key's time to live


class MemoryWindows:
    """See `Windows`. Any thread may call.

    Args:
        max_keys: of each table; the least recently used is forgotten first.
        clock: a monotonic one.
    """

    def __init__(self, max_keys: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_keys = max_keys
        self._clock = clock
        self._tables: dict[str, RateLimiter] = {}
        self._lock = threading.Lock()

    def admit(self, windows: Sequence[Window]) -> float | None:
        """See `Windows.admit`."""
        now = self._clock()
        with self._lock:
            asked = [(table := self._table(window), window.key, table.times(window.key)) for window in windows]
            wait = max((table.seconds_until_room(times, now) for table, _, times in asked), default=0.0)
            if wait:
                return wait
            for table, key, times in asked:
                table.count(key, times, now)
        return None

    def levels(self) -> Levels:
        """The lengths of the tables that grow with those who ask."""
        with self._lock:  # to be counted, a table drops what is too old
            return {name: (len(table), self._max_keys) for name, table in self._tables.items()}

    def _table(self, window: Window) -> RateLimiter:
        table = self._tables.get(window.table)
        if table is None:
            table = self._tables[window.table] = RateLimiter(window.rate, clock=self._clock, max_keys=self._max_keys)
        return table
