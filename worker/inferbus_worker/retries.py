"""Idempotent retries: what became of the requests of the last minutes, by (project, client, request id).

Bounded twice: by age, and by the bytes of the outcomes kept. A retryable failure is not kept: the retry is what its
reply asked for, and has to run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from cachetools import TTLCache

from inferbus_client.wire import Failure
from inferbus_worker.reply_stream import Answered

_ENTRY_BYTES = 512


class RetryKey(NamedTuple):
    """What makes two requests the same one. Only a requester that names both ids takes part."""

    project: str
    client_id: str
    request_id: str


class RecentRequests:
    """Knows requests in flight and, for a while, their outcomes."""

    def __init__(self, max_bytes: int, ttl: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._in_flight: set[RetryKey] = set()
        self._outcomes: TTLCache[RetryKey, Answered | Failure] = TTLCache(
            max_bytes, max(ttl, 0.001), timer=clock, getsizeof=_size
        )
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._outcomes)

    def known(self, key: RetryKey) -> Answered | Failure | Literal["in flight"] | None:
        """What became of this request; None: it is new."""
        with self._lock:
            return "in flight" if key in self._in_flight else self._outcomes.get(key)

    def begin(self, key: RetryKey) -> None:
        with self._lock:
            self._in_flight.add(key)

    def end(self, key: RetryKey, outcome: Answered | Failure) -> None:
        with self._lock:
            self._in_flight.discard(key)
            if isinstance(outcome, Failure) and outcome.retryable:
                return
            if _size(outcome) <= self._outcomes.maxsize:
                self._outcomes[key] = outcome


def _size(outcome: Answered | Failure) -> int:
    return _ENTRY_BYTES + 4 * (len(outcome.text) if isinstance(outcome, Answered) else len(outcome.detail))
