"""Idempotent retries: what became of the requests of the last minutes, by `RetryKey`.

Bounded twice: by age, and by the bytes of the outcomes kept. A retryable failure is not kept: the retry is what its
reply asked for, and has to run.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from cachetools import TTLCache

from inferbus_client.contract.wire import Failure
from inferbus_worker.chat import memory_of
from inferbus_worker.outcome import Answered
from inferbus_worker.state.keys import RetryKey
from inferbus_worker.state.protocols import Finished, Levels

# What an outcome takes besides its texts and ids; measured, rounded up.
_ENTRY_BYTES = 1024


class _Kept(NamedTuple):
    """An outcome, and about how many bytes it takes together with its key."""

    finished: Finished
    size: int


class RecentRequests:
    """Knows requests in flight and, for a while, their outcomes."""

    def __init__(self, max_bytes: int, ttl: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._in_flight: set[RetryKey] = set()
        self._outcomes: TTLCache[RetryKey, _Kept] = TTLCache(
            max_bytes, max(ttl, 0.001), timer=clock, getsizeof=lambda kept: kept.size
        )
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._outcomes)

    def levels(self) -> Levels:
        """What the outcomes kept take in memory, about."""
        with self._lock:
            return {"retryMemoryBytes": (int(self._outcomes.currsize), int(self._outcomes.maxsize))}

    def known(self, key: RetryKey) -> Finished | Literal["in flight"] | None:
        """See `Idempotency.known`."""
        with self._lock:
            if key in self._in_flight:
                return "in flight"
            kept = self._outcomes.get(key)
            return None if kept is None else kept.finished

    def started(self, key: RetryKey) -> bool:
        """See `Idempotency.started`."""
        with self._lock:
            if key in self._in_flight:
                return False
            self._in_flight.add(key)
            return True

    def finished(self, key: RetryKey, finished: Finished) -> None:
        """See `Idempotency.finished`."""
        with self._lock:
            self._in_flight.discard(key)
            if isinstance(finished.outcome, Failure) and finished.outcome.retryable:
                return
            size = _size(key, finished)
            if size <= self._outcomes.maxsize:
                self._outcomes[key] = _Kept(finished, size)


def _size(key: RetryKey, finished: Finished) -> int:
    outcome = finished.outcome
    said = (outcome.text, outcome.reasoning or "") if isinstance(outcome, Answered) else (outcome.detail,)
    calls = memory_of(outcome.tool_calls) if isinstance(outcome, Answered) and outcome.tool_calls else 0
    return _ENTRY_BYTES + calls + sum(map(sys.getsizeof, (*said, *key, finished.session)))
