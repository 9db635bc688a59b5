"""Cumulative histograms: what two readings tell of the time between them, and of several workers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferbus_client.contract.histogram import BOUNDS_MS, LABELS, Histogram
from inferbus_worker.counting import Counting

# Within the bounds: below the first one there is only a guess.
SECONDS = st.lists(st.floats(0.0011, 900), min_size=1, max_size=200)


def reading(seconds: list[float]) -> Histogram:
    counting = Counting()
    for each in seconds:
        counting.add(each)
    return counting.reading()


@given(SECONDS, st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_right_to_a_bucket(seconds: list[float], share: float) -> None:
    exact = sorted(seconds)[math.ceil(share * len(seconds)) - 1] * 1000
    found = reading(seconds).percentile(share)
    assert found is not None
    assert exact / 1.34 <= found <= exact * 1.34


@given(SECONDS, SECONDS)
def test_two_readings_tell_what_lies_between_them(earlier: list[float], later: list[float]) -> None:
    between = reading(earlier + later).since(reading(earlier))
    assert {label: count for label, count in between.buckets.items() if count} == reading(later).buckets
    assert between.count == len(later)
    assert between.sum_ms == pytest.approx(sum(later) * 1000, abs=1)


def test_several_workers_are_one() -> None:
    together = Histogram.sum_of([reading([0.1] * 3), reading([0.1, 40])])
    assert (together.count, together.buckets["100"], together.buckets["40000"]) == (5, 4, 1)


def test_nothing_has_no_percentile() -> None:
    assert Histogram().percentile(0.5) is None


def test_what_is_over_the_last_bound_is_counted_and_said_to_be_that_long() -> None:
    assert reading([2000.0]).buckets == {"more": 1}
    assert reading([2000.0]).percentile(0.99) == BOUNDS_MS[-1]


def test_a_stranger_s_labels_count_nothing() -> None:
    strange = Histogram.model_validate({"buckets": {"\x1b[2J": 9, "1e400": 9, "10": 1}})
    assert (strange.count, strange.percentile(0.5)) == (1, 10)


def test_the_labels_are_the_contract() -> None:
    assert LABELS[:11] == ("1", "1.2", "1.5", "2", "2.5", "3", "4", "5", "6", "8", "10")
    assert LABELS[-2:] == ("1000000", "more")
    assert [f"{bound:.7g}" for bound in BOUNDS_MS] == list(LABELS[:-1])
    assert sorted(BOUNDS_MS) == list(BOUNDS_MS)
