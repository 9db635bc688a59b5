"""Pacing: sends are spaced, and waits grow with jitter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferbus_client.pacing import Backoff, Pacer


def test_sends_are_spaced_by_the_interval() -> None:
    now = 100.0
    pacer = Pacer(0.5, clock=lambda: now)
    assert [pacer.reserve() for _ in range(3)] == [0.0, 0.5, 1.0]


def test_an_idle_pacer_owes_nothing() -> None:
    now = [0.0]
    pacer = Pacer(0.5, clock=lambda: now[0])
    pacer.reserve()
    now[0] = 10.0
    assert pacer.reserve() == 0.0
    assert pacer.reserve() == 0.5


def test_no_interval_means_no_wait() -> None:
    pacer = Pacer(0.0, clock=lambda: 1.0)
    assert [pacer.reserve() for _ in range(3)] == [0.0, 0.0, 0.0]


def test_the_longest_wait_doubles_up_to_the_cap() -> None:
    longest = Backoff(base=0.5, cap=3.0, uniform=lambda: 1.0)
    assert [longest.delay(attempt) for attempt in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_jitter_reaches_down_to_nothing() -> None:
    assert Backoff(uniform=lambda: 0.0).delay(10) == 0.0


@given(attempt=st.integers(0, 10_000), retry_after=st.floats(0, 3600))
def test_nobody_comes_back_before_the_worker_said(attempt: int, retry_after: float) -> None:
    delay = Backoff(cap=15.0).delay(attempt, retry_after)
    assert retry_after <= delay <= retry_after + 15.0
