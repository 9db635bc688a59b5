"""What a worker's readings come to now: rates and percentiles of the last seconds, and of several workers together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from inferbus_client.contract.histogram import Histogram
from inferbus_client.contract.presence import GroupStats, Stats
from inferbus_client.fleet.watch import WorkerView

_TOTAL: Final = "totalMs"
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class Figures:
    """One worker's, or several workers'; None is what is not known.

    Attributes:
        active: requests in the engine now, of at most `capacity`.
        queued: requests that wait now, of at most `queue_size`. Of a worker in a group those that it has taken itself.
        requests_per_s: terminal replies per second.
        tokens_per_s: generated tokens per second.
        p50: half of the requests took at most so many milliseconds.
        p95: nineteen of twenty did.
        p99: ninety-nine of a hundred did.
        errors: requests refused or failed, since the start.
        times: what the percentiles are of, where that can be added up.
        group: whose queue `queue_size` is the bound of, with what waits in it; None where it is the worker's own.
    """

    active: int = 0
    capacity: int | None = None
    queued: int = 0
    queue_size: int | None = None
    requests_per_s: float | None = None
    tokens_per_s: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    errors: int = 0
    times: Histogram | None = None
    group: GroupStats | None = None


def figures_of(view: WorkerView) -> Figures | None:
    """A worker's figures; None where nothing is known, or it has gone.

    Rates and times are of the time between the readings that are there; with one alone they are those of the worker's
    last interval, if one has ended, else of all the time since its start.
    """
    stats = view.stats
    if stats is None or view.is_gone:
        return None
    now = Figures(
        active=stats.active,
        capacity=stats.capacity,
        queued=stats.queued,
        queue_size=stats.queue_size,
        errors=stats.errors + sum(stats.rejected.values()),
        group=stats.group,
    )
    # A worker of before there were histograms has only what its intervals say.
    if len(view.readings) > 1 and stats.histograms:
        return _between(now, view.readings[0], stats)
    if stats.requests_per_s is not None or not stats.histograms:
        latency = stats.latency_ms
        return replace(
            now,
            requests_per_s=stats.requests_per_s,
            tokens_per_s=stats.tokens_per_s,
            p50=latency.p50,
            p95=latency.p95,
            p99=latency.p99,
        )
    return _between(now, Stats(worker=stats.worker), stats)


def together(every: Sequence[Figures]) -> Figures:
    """What they come to in all, the queue of a group once. Percentiles only where there are the times of each."""
    times = [figures.times for figures in every if figures.times is not None]
    # The word of one that reaches it counts before that of one that does not.
    by_reach = sorted(every, key=lambda figures: figures.group is not None and figures.group.reached)
    groups = {figures.group.name: (figures.group, figures.queue_size) for figures in by_reach if figures.group}
    bounds = [figures.queue_size for figures in every if figures.group is None]
    return _timed(
        Figures(
            active=sum(figures.active for figures in every),
            capacity=_sum([figures.capacity for figures in every]),
            queued=sum(figures.queued for figures in every) + sum(group.queued for group, _ in groups.values()),
            queue_size=_sum([*bounds, *(size for _, size in groups.values())]),
            requests_per_s=_sum([figures.requests_per_s for figures in every]),
            tokens_per_s=_sum([figures.tokens_per_s for figures in every]),
            errors=sum(figures.errors for figures in every),
        ),
        Histogram.sum_of(times) if len(times) == len(every) else None,
    )


def _between(now: Figures, earlier: Stats, later: Stats) -> Figures:
    seconds = max(later.uptime_s - earlier.uptime_s, 0.001)
    ended = later.processed + later.errors - earlier.processed - earlier.errors
    times = later.histograms.get(_TOTAL, Histogram()).since(earlier.histograms.get(_TOTAL, Histogram()))
    rates = replace(
        now,
        requests_per_s=ended / seconds,
        tokens_per_s=(later.completion_tokens - earlier.completion_tokens) / seconds,
    )
    return _timed(rates, times)


def _timed(figures: Figures, times: Histogram | None) -> Figures:
    if times is None:
        return figures
    p50, p95, p99 = (times.percentile(share) for share in (0.50, 0.95, 0.99))
    return replace(figures, times=times, p50=p50, p95=p95, p99=p99)


def _sum(values: Sequence[_Number | None]) -> _Number | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
