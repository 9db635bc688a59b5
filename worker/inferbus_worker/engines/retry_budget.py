"""How many retries a slot may have: a fifth of its first attempts, so that retries never are what keeps it down.

Without a bound every request that a tired backend refuses is sent thrice, just when it can take the least.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Literal

from inferbus_worker.engines.recent import WINDOW, RecentCounts

#: One retry for so many first attempts.
_FIRST_PER_RETRY: Final = 5
#: Retries that are saved up for lone requests, one each ten seconds.
_MOST_SAVED: Final = 3.0


class RetryBudget:
    """One slot's. Any thread may use it; it has a lock of its own, and never waits but for that.

    In any ten seconds the retries are at most a fifth of the first attempts. While there are too few of these for even
    one retry, a small reserve pays: it grows by one each ten seconds up to three. What it has paid counts as well when
    more requests come, so that under load the slot sees at most 1.2 times what was asked of it.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._recent: RecentCounts[Literal["first", "retry"]] = RecentCounts("first", "retry", clock=clock)
        self._saved = _MOST_SAVED
        self._saved_at = clock()

    def first(self) -> None:
        """A request goes to the slot for the first time."""
        with self._lock:
            self._recent.add("first")

    def take(self) -> bool:
        """Whether a retry may go to the slot now; it is counted then."""
        with self._lock:
            first = self._recent["first"]
            may = (self._recent["retry"] + 1) * _FIRST_PER_RETRY <= first
            if may or (first < _FIRST_PER_RETRY and self._spend_saved()):
                self._recent.add("retry")
                return True
            return False

    def _spend_saved(self) -> bool:
        now = self._clock()
        self._saved = min(self._saved + (now - self._saved_at) / WINDOW, _MOST_SAVED)
        self._saved_at = now
        if self._saved < 1:
            return False
        self._saved -= 1
        return True
