"""What a slot has done: counts since the start, times of the last interval."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import NamedTuple

from inferbus_client.contract.presence import Latency, SlotStats
from inferbus_worker.counting import SAMPLES, latency_of
from inferbus_worker.engines.breaker import BreakerState


class _Times(NamedTuple):
    """What the last interval came to, in milliseconds."""

    wait: float | None = None
    latency: Latency = Latency()
    first_token: float | None = None


class SlotFigures:
    """One slot's. Any thread may use it: it is told of each attempt once, at its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = self._retries = 0
        self._errors: Counter[str] = Counter()
        self._ended = 0
        self._waited = 0.0
        self._totals: deque[float] = deque(maxlen=SAMPLES)
        self._first_tokens: deque[float] = deque(maxlen=SAMPLES)
        self._times = _Times()

    def ended(
        self,
        total_seconds: float,
        waited_seconds: float,
        first_token_seconds: float | None = None,
        fault: str | None = None,
        *,
        is_retry: bool = False,
    ) -> None:
        """An attempt has ended.

        Args:
            total_seconds: since the slot took it.
            waited_seconds: from when the request could have run until the slot took it.
            first_token_seconds: since the slot took it, to the first token; None where there was none.
            fault: how the slot failed it (`BackendFault`, or `error`); None where it did not. Failures are counted, but
                their times are not: how fast a server refuses says nothing of its answers.
            is_retry: whether it was not the request's first attempt, here or elsewhere.
        """
        with self._lock:
            self._requests += 1
            self._ended += 1
            self._waited += waited_seconds
            self._retries += is_retry
            if fault is not None:
                self._errors[fault] += 1
                return
            self._totals.append(total_seconds)
            if first_token_seconds is not None:
                self._first_tokens.append(first_token_seconds)

    @property
    def finished(self) -> int:
        """Attempts that have ended."""
        return self._requests

    def end_interval(self) -> None:
        """An interval ends now: its times are what `reading` tells until the next one ends."""
        with self._lock:
            wait = round(self._waited / self._ended * 1000, 1) if self._ended else None
            self._times = _Times(wait, latency_of(self._totals), latency_of(self._first_tokens).p50)
            self._ended, self._waited = 0, 0.0
            self._totals.clear()
            self._first_tokens.clear()

    def reading(
        self,
        backend: str,
        state: str,
        *,
        active: int,
        limit: int | None,
        breaker: BreakerState = "closed",
        headroom: float | None = None,
        memory_declared: int | None = None,
        memory_measured: int | None = None,
    ) -> SlotStats:
        """The figures as they stand, with what the slot says of itself. To read them changes nothing."""
        with self._lock:
            return SlotStats(
                backend=backend,
                # A slot that is left alone is not ready, whatever its engine is.
                state=breaker if state == "ready" and breaker != "closed" else state,
                active=active,
                limit=limit,
                memory_declared=memory_declared,
                memory_measured=memory_measured,
                requests=self._requests,
                errors=dict(self._errors),
                retries=self._retries,
                wait_ms=self._times.wait,
                latency_ms=self._times.latency,
                first_token_ms=self._times.first_token,
                breaker=breaker,
                headroom=headroom,
            )
