"""What the worker has done and how long it took: counters and histograms since the start, the last interval's rates."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from inferbus_client.contract.histogram import Histogram
from inferbus_client.contract.presence import Latency, Level, ModelStats, Stats
from inferbus_client.contract.wire import Failure
from inferbus_worker.counting import SAMPLES, Counting, latency_of
from inferbus_worker.flow.job import Answer, Job

# Turns that the estimate of the wait looks back on, about.
_RECENT_TURNS = 64


class _Turns:
    """How long a model's turns take: a running mean that forgets. It is asked for with every request, at no cost."""

    __slots__ = ("count", "mean")

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0

    def add(self, seconds: float) -> None:
        self.count = min(self.count + 1, _RECENT_TURNS)
        self.mean += (seconds - self.mean) / self.count


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

    def of(self, model: str) -> tuple[int, int]:
        """The same of one model alone."""
        ...


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
        self._turns: defaultdict[str, _Turns] = defaultdict(_Turns)

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
                self._turns[job.model].add(timings.total - timings.queue)
            else:
                self._errors += 1

    def wait_estimate(self, position: int, model: str = "") -> float | None:
        """Seconds that a request at this place of its model's will wait, by the latest turns; None while unknown."""
        active, slots = self._pool.of(model)
        slots = slots or 1
        ahead = position + active - slots + 1
        if ahead <= 0:
            return 0.0
        turns = self._turns.get(model)
        return ahead / slots * turns.mean if turns is not None else None

    def most_ahead(self, seconds: float, model: str) -> int | None:
        """The last place of its model's at which a request would wait for so long at most; None while unknown.

        There is none, which -1 says, where it is too late already.
        """
        if seconds < 0:
            return -1
        active, slots = self._pool.of(model)
        turns = self._turns.get(model)
        if turns is None or not turns.mean:
            return None
        slots = slots or 1
        return int(seconds / turns.mean * slots) + slots - active - 1

    def at_once(self, model: str) -> int:
        """How many turns of a model's may run at once; 0 until that is known."""
        return self._pool.of(model)[1]

    @property
    def finished(self) -> int:
        """Admitted requests that have ended, well or not."""
        return self._processed + self._errors

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
        models: Mapping[str, ModelStats] | None = None,
        queued_by_project: Mapping[str, int] | None = None,
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
                queued_by_project=dict(queued_by_project or {}),
                active=self._pool.active,
                capacity=self._pool.size or None,
                sessions=sessions,
                levels=dict(levels),
                models=dict(models or {}),
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
