"""What the worker has done and how long it took: counters and histograms since the start, the last interval's rates."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

from inferbus_client.contract.histogram import Histogram
from inferbus_client.contract.presence import Latency, Level, Stats
from inferbus_client.contract.wire import Failure
from inferbus_worker.counting import SAMPLES, Counting, latency_of
from inferbus_worker.flow.job import Answer, Job

_GIVEN_UP: Final = frozenset({"cancelled", "deadline_exceeded"})
# Turns that the estimate of the wait looks back on, about.
_RECENT_TURNS = 64


class _Rates(NamedTuple):
    """What the last interval came to."""

    latency: Latency = Latency()
    tokens_per_s: float | None = None
    requests_per_s: float | None = None


class Occupancy(Protocol):
    """How many turns run now, and how many may at once (0 until that is known)."""

    @property
    def active(self) -> int: ...

    @property
    def size(self) -> int: ...


class Meter:
    """Counts. Every method may be called from any thread.

    Args:
        pool: where turns run.
    """

    def __init__(self, pool: Occupancy, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._lock = threading.Lock()
        self._started = self._interval_began = clock()
        self._processed = self._errors = self._repeated = 0
        self._prompt_tokens = self._completion_tokens = 0
        self._queue, self._first_token, self._total = Counting(), Counting(), Counting()
        self._rejected: Counter[str] = Counter()
        self._rates = _Rates()
        self._ended_before = self._tokens_before = self._rejected_before = 0
        self._latencies: deque[float] = deque(maxlen=SAMPLES)
        self._forms_given_up = 0
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
            self._latencies.append(timings.total)
            self._queue.add(timings.queue)
            self._total.add(timings.total)
            if timings.first_token is not None:
                self._first_token.add(timings.first_token)
            if isinstance(outcome, Answer):
                self._processed += 1
                self._prompt_tokens += outcome.usage.prompt_tokens
                self._completion_tokens += outcome.usage.completion_tokens
                # A running mean that forgets: the estimate is asked for with every request, and must cost nothing.
                self._turns = min(self._turns + 1, _RECENT_TURNS)
                self._mean_turn += (timings.total - timings.queue - self._mean_turn) / self._turns
            else:
                self._errors += 1
                was_taken = job.taken_at is not None
                if job.request.has_form and was_taken and not job.answering and outcome.code in _GIVEN_UP:
                    self._forms_given_up += 1

    def wait_estimate(self, position: int) -> float | None:
        """Seconds that a request at this place in the queue will wait, by the latest turns; None while unknown."""
        slots = self._pool.size or 1
        ahead = position + self._pool.active - slots + 1
        if ahead <= 0:
            return 0.0
        return ahead / slots * self._mean_turn if self._turns else None

    @property
    def slots(self) -> int:
        """How many turns may run at once; 0 until that is known."""
        return self._pool.size

    @property
    def active(self) -> int:
        """Turns under way now."""
        return self._pool.active

    @property
    def finished(self) -> int:
        """Admitted requests that have ended, well or not."""
        return self._processed + self._errors

    @property
    def forms_given_up(self) -> int:
        """Answers in a given form that nobody waited for any more before they had begun: perhaps they never would."""
        return self._forms_given_up

    @property
    def quiet(self) -> bool:
        """Whether nothing at all has happened since the interval began."""
        with self._lock:
            return self.finished == self._ended_before and self._total_rejected == self._rejected_before

    def end_interval(self) -> None:
        """An interval ends now: its rates are what `reading` tells until the next one ends."""
        now = self._clock()
        with self._lock:
            seconds = max(now - self._interval_began, 1e-9)
            self._rates = _Rates(
                latency_of(self._latencies),
                tokens_per_s=round((self._completion_tokens - self._tokens_before) / seconds, 1),
                requests_per_s=round((self.finished - self._ended_before) / seconds, 2),
            )
            self._interval_began = now
            self._ended_before, self._tokens_before = self.finished, self._completion_tokens
            self._rejected_before = self._total_rejected
            self._latencies.clear()

    def reading(
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
        """The figures as they stand. To read them changes nothing."""
        with self._lock:
            return Stats(
                worker=worker,
                uptime_s=round(self._clock() - self._started, 3),
                processed=self._processed,
                errors=self._errors,
                rejected=dict(self._rejected),
                repeated=self._repeated,
                prompt_tokens=self._prompt_tokens,
                completion_tokens=self._completion_tokens,
                histograms=self._histograms(),
                queued=queued,
                queue_size=queue_size,
                active=self._pool.active,
                capacity=self._pool.size or None,
                sessions=sessions,
                levels=dict(levels),
                replies_dropped=replies_dropped,
                unreadable_messages=unreadable_messages,
                latency_ms=self._rates.latency,
                tokens_per_s=self._rates.tokens_per_s,
                requests_per_s=self._rates.requests_per_s,
            )

    def _histograms(self) -> dict[str, Histogram]:
        """By the names that a reply's timing has."""
        counted = {"queueMs": self._queue, "firstTokenMs": self._first_token, "totalMs": self._total}
        return {name: counting.reading() for name, counting in counted.items()}

    @property
    def _total_rejected(self) -> int:
        return sum(self._rejected.values())
