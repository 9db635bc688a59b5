"""What readings come to: between two of them, of one alone, of several workers."""

from __future__ import annotations

from typing import Any

import pytest

from inferbus_client.contract.histogram import Histogram
from inferbus_client.contract.presence import Latency, Presence, Stats
from inferbus_client.fleet.figures import figures_of, together
from inferbus_client.fleet.watch import WorkerView


def reading(uptime: float, processed: int = 0, *, slow: int = 0, **more: Any) -> Stats:
    """Of a worker that answers in 10 ms, 20 tokens each; `slow` ones take 1000 ms."""
    buckets = {"10": processed - slow, "1000": slow}
    histograms = {"totalMs": Histogram(buckets=buckets)}
    tokens = 20 * processed
    return Stats(
        worker="w", uptime_s=uptime, processed=processed, completion_tokens=tokens, histograms=histograms, **more
    )


def view(*readings: Stats, state: str = "ready") -> WorkerView:
    return WorkerView(Presence.model_validate({"worker": "w", "state": state}), readings)


LAST_INTERVAL: dict[str, Any] = {
    "requests_per_s": 5.0,
    "tokens_per_s": 50.0,
    "latency_ms": Latency(p50=11.0, p95=22.0),
}


def test_between_two_readings() -> None:
    figures = figures_of(view(reading(100, 1000), reading(105, 1010), reading(110, 1040, slow=20, **LAST_INTERVAL)))
    assert figures is not None
    assert (figures.requests_per_s, figures.tokens_per_s) == (4, 80)
    assert figures.p50 == pytest.approx(10, abs=2)
    assert figures.p95 is not None
    assert 800 < figures.p95 <= 1000


def test_of_one_reading_they_are_the_last_interval_s() -> None:
    figures = figures_of(view(reading(100, 1000, **LAST_INTERVAL)))
    assert figures is not None
    assert (figures.requests_per_s, figures.tokens_per_s, figures.p50, figures.p95) == (5, 50, 11, 22)


def test_of_one_reading_before_an_interval_has_ended_they_are_of_all_the_time() -> None:
    figures = figures_of(view(reading(20, 100)))
    assert figures is not None
    assert (figures.requests_per_s, figures.tokens_per_s, figures.p50) == (5, 100, 9)  # in its bucket, about


def test_an_older_worker_has_what_its_intervals_say() -> None:
    before = Stats(worker="w", uptime_s=10, processed=5, **LAST_INTERVAL)
    figures = figures_of(view(before, before.model_copy(update={"uptime_s": 70})))
    assert figures is not None
    assert (figures.requests_per_s, figures.p95) == (5, 22)


@pytest.mark.parametrize("known", [view(), view(reading(10, 5), state="offline")], ids=["unknown", "gone"])
def test_nothing_of_whom_nothing_is_known(known: WorkerView) -> None:
    assert figures_of(known) is None


def test_several_workers_are_added_up() -> None:
    one = figures_of(view(reading(10, 0, capacity=8), reading(20, 100, active=3, capacity=8, queued=5, errors=0)))
    two = figures_of(view(reading(50, 0), reading(60, 20, slow=20, rejected={"overloaded": 7}, errors=0)))
    assert one is not None
    assert two is not None
    total = together([one, two])
    assert (total.active, total.capacity, total.queued, total.errors) == (3, 8, 5, 7)
    assert (total.requests_per_s, total.tokens_per_s) == (12, 240)
    assert total.p50 == pytest.approx(10, abs=2)
    assert total.p95 is not None
    assert 800 < total.p95 <= 1000


def test_percentiles_cannot_be_added_up() -> None:
    interval = figures_of(view(reading(100, 1000, **LAST_INTERVAL)))
    assert interval is not None
    total = together([interval, interval])
    assert (total.requests_per_s, total.p50, total.p95) == (10, None, None)
