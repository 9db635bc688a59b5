"""What the worker has done and how long it took: counters, percentiles, the interval's line."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from inferbus_client.presence import Latency, Level, Stats
from inferbus_client.wire import Failure
from inferbus_worker.job import Answer, Job

# Latencies kept for one interval's percentiles; more requests than that are sampled by their latest.
_SAMPLES = 10_000
# Turns that the estimate of the wait looks back on, about.
_RECENT_TURNS = 64


class Meter:
    """Counts. Every method may be called from any thread.

    Args:
        slots: how many turns run at once.
        active: how many run now.
    """

    def __init__(self, *, active: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self.slots = 1
        self._active = active
        self._clock = clock
        self._lock = threading.Lock()
        self._started = self._interval_began = clock()
        self._processed = self._errors = self._repeated = 0
        self._rejected: Counter[str] = Counter()
        self._interval_ended = self._interval_tokens = 0
        self._latencies: deque[float] = deque(maxlen=_SAMPLES)
        self._turns = 0
        self._mean_turn = 0.0

    def rejected(self, code: str) -> None:
        with self._lock:
            self._rejected[code] += 1

    def repeated(self) -> None:
        with self._lock:
            self._repeated += 1

    def ended(self, job: Job, outcome: Answer | Failure) -> None:
        """An admitted request has reached its terminal state."""
        timings = job.timings
        with self._lock:
            self._interval_ended += 1
            self._latencies.append(timings.total)
            if isinstance(outcome, Answer):
                self._processed += 1
                self._interval_tokens += outcome.usage.completion_tokens
                # A running mean that forgets: the estimate is asked for with every request, and must cost nothing.
                self._turns = min(self._turns + 1, _RECENT_TURNS)
                self._mean_turn += (timings.total - timings.queue - self._mean_turn) / self._turns
            else:
                self._errors += 1

    def wait_estimate(self, position: int) -> float | None:
        """Seconds that a request at this place in the queue will wait, by the latest turns; None while unknown."""
        ahead = position + self._active() - self.slots + 1
        if ahead <= 0:
            return 0.0
        return ahead / self.slots * self._mean_turn if self._turns else None

    @property
    def finished(self) -> int:
        """Admitted requests that have ended, well or not."""
        return self._processed + self._errors

    @property
    def quiet(self) -> bool:
        """Whether nothing at all has happened since the interval began."""
        with self._lock:
            return not self._interval_ended and self._total_rejected == self._rejected_before

    def take_interval(
        self,
        worker: str,
        *,
        queued: int,
        queue_size: int,
        sessions: int,
        levels: Mapping[str, Level],
        replies_dropped: int,
        unreadable_messages: int = 0,
    ) -> Stats:
        """The figures for the interval that ends now; the next one begins."""
        now = self._clock()
        with self._lock:
            seconds = max(now - self._interval_began, 1e-9)
            stats = Stats(
                worker=worker,
                uptime_s=round(now - self._started, 1),
                processed=self._processed,
                errors=self._errors,
                rejected=dict(self._rejected),
                queued=queued,
                queue_size=queue_size,
                active=self._active(),
                capacity=self.slots,
                sessions=sessions,
                levels=dict(levels),
                replies_dropped=replies_dropped,
                unreadable_messages=unreadable_messages,
                latency_ms=_latency(sorted(self._latencies)),
                tokens_per_s=round(self._interval_tokens / seconds, 1),
                requests_per_s=round(self._interval_ended / seconds, 2),
            )
            self._interval_began = now
            self._interval_ended = self._interval_tokens = 0
            self._rejected_before = self._total_rejected
            self._latencies.clear()
        return stats

    _rejected_before = 0

    @property
    def _total_rejected(self) -> int:
        return sum(self._rejected.values())


def _latency(ordered: Sequence[float]) -> Latency:
    if not ordered:
        return Latency()
    return Latency(
        avg=round(sum(ordered) / len(ordered) * 1000, 1),
        p50=_percentile(ordered, 0.50),
        p95=_percentile(ordered, 0.95),
        p99=_percentile(ordered, 0.99),
    )


def _percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile, in milliseconds."""
    return round(ordered[math.ceil(share * len(ordered)) - 1] * 1000, 1)
