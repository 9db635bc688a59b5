"""Pacing: sends are spaced, and waits grow with jitter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferbus_client.exchange.pacing import Backoff, Pacer


def test_a_sessions_sends_are_spaced_by_the_interval() -> None:
    now = [100.0]
    pacer = Pacer(0.5, clock=lambda: now[0])
    assert (pacer.take("s"), pacer.take("s")) == (0.0, 0.5)
    now[0] = 100.25
    assert pacer.take("s") == 0.25
    now[0] = 100.5
    assert (pacer.take("s"), pacer.take("s")) == (0.0, 0.5)


def test_sessions_do_not_wait_for_one_another_and_what_has_none_for_nobody() -> None:
    pacer = Pacer(0.5, clock=lambda: 1.0)
    assert [pacer.take(session) for session in ("a", "b", "a", None, None)] == [0.0, 0.0, 0.5, 0.0, 0.0]


def test_who_only_asks_for_a_slot_that_is_not_free_takes_none() -> None:
    now = [0.0]
    pacer = Pacer(0.5, clock=lambda: now[0])
    assert [pacer.take("s") for _ in range(200)] == [0.0] + [0.5] * 199
    now[0] = 0.5
    assert pacer.take("s") == 0.0


def test_an_idle_session_owes_nothing() -> None:
    now = [0.0]
    pacer = Pacer(0.5, clock=lambda: now[0])
    pacer.take("s")
    now[0] = 10.0
    assert (pacer.take("s"), pacer.take("s")) == (0.0, 0.5)


def test_no_interval_means_no_wait() -> None:
    pacer = Pacer(0.0, clock=lambda: 1.0)
    assert [pacer.take("s") for _ in range(3)] == [0.0, 0.0, 0.0]


def test_only_sessions_that_sent_just_now_are_remembered_and_of_those_a_bounded_number() -> None:
    now = [0.0]
    pacer = Pacer(0.5, clock=lambda: now[0], max_sessions=3)
    for session in "abcde":
        assert pacer.take(session) == 0.0
    assert list(pacer._free_at) == ["c", "d", "e"]
    now[0] = 1.0
    pacer.take("f")
    assert list(pacer._free_at) == ["f"]


def test_the_longest_wait_doubles_up_to_the_cap() -> None:
    longest = Backoff(base=0.5, cap=3.0, uniform=lambda: 1.0)
    assert [longest.delay(attempt) for attempt in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_jitter_reaches_down_to_nothing() -> None:
    assert Backoff(uniform=lambda: 0.0).delay(10) == 0.0


@given(attempt=st.integers(0, 10_000), retry_after=st.floats(0, 3600))
def test_nobody_comes_back_before_the_worker_said(attempt: int, retry_after: float) -> None:
    delay = Backoff(cap=15.0).delay(attempt, retry_after)
    assert retry_after <= delay <= retry_after + 15.0
