"""How long things took: histograms that grow, and the percentiles of an interval."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Sequence
from typing import Final

from inferbus_client.contract.histogram import BOUNDS_MS, LABELS, Histogram
from inferbus_client.contract.presence import Latency

#: Times kept for one interval's percentiles; more than that are sampled by their latest.
SAMPLES: Final = 10_000


class Counting:
    """A histogram that grows. Not for two threads at once."""

    def __init__(self) -> None:
        self._counts = [0] * len(LABELS)
        self._sum_ms = 0.0

    def add(self, seconds: float) -> None:
        milliseconds = seconds * 1000
        self._counts[bisect_left(BOUNDS_MS, milliseconds)] += 1
        self._sum_ms += milliseconds

    def reading(self) -> Histogram:
        buckets = {label: count for label, count in zip(LABELS, self._counts, strict=True) if count}
        return Histogram(sum_ms=round(self._sum_ms, 1), buckets=buckets)


def latency_of(seconds: Collection[float]) -> Latency:
    """Their average and percentiles; none of nothing."""
    if not seconds:
        return Latency()
    ordered = sorted(seconds)
    return Latency(
        avg=round(sum(ordered) / len(ordered) * 1000, 1),
        p50=_percentile(ordered, 0.50),
        p95=_percentile(ordered, 0.95),
        p99=_percentile(ordered, 0.99),
    )


def _percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile, in milliseconds."""
    return round(ordered[math.ceil(share * len(ordered)) - 1] * 1000, 1)
