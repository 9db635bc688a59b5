"""How many retries a slot may have: a fifth of its first attempts, and a little for lone requests."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferbus_worker.engines.retry_budget import RetryBudget
from support.rooms import FakeClock

#: What may be spent beyond a fifth, to begin with, and per second.
SAVED, EACH_SECOND = 3, 0.1


def budget() -> tuple[RetryBudget, FakeClock]:
    clock = FakeClock()
    return RetryBudget(clock=clock), clock


def first(one: RetryBudget, count: int) -> None:
    for _ in range(count):
        one.first()


def taken(one: RetryBudget, tries: int = 100) -> int:
    return sum(one.take() for _ in range(tries))


def test_a_lone_request_may_be_retried_and_three_are_saved_up() -> None:
    one, clock = budget()
    first(one, 1)
    assert taken(one) == 3
    clock.pass_(10)
    first(one, 1)
    assert taken(one) == 1
    clock.pass_(1000)
    first(one, 1)
    assert taken(one) == 3


def test_under_load_it_is_a_fifth_of_the_first_attempts() -> None:
    one, _ = budget()
    first(one, 100)
    assert taken(one) == 20
    first(one, 4)
    assert taken(one) == 0
    first(one, 1)
    assert taken(one) == 1


def test_what_the_reserve_has_paid_counts_when_more_requests_come() -> None:
    one, _ = budget()
    first(one, 1)
    assert taken(one) == 3
    first(one, 99)
    assert taken(one) == 17


def test_attempts_of_more_than_ten_seconds_ago_pay_for_nothing() -> None:
    one, clock = budget()
    first(one, 100)
    clock.pass_(10)
    first(one, 5)
    assert taken(one) == 1


STEPS = st.lists(
    st.tuples(st.floats(0, 15), st.integers(0, 40), st.integers(0, 40)), max_size=60
)  # seconds that pass, then first attempts, then wishes to retry


@given(STEPS)
def test_the_amplification_is_bounded_over_any_run(steps: list[tuple[float, int, int]]) -> None:
    one, clock = budget()
    began, firsts, retries = clock.now, 0, 0
    for seconds, new, wishes in steps:
        clock.pass_(seconds)
        first(one, new)
        firsts += new
        retries += taken(one, wishes)
        assert retries <= firsts * 0.2 + SAVED + (clock.now - began) * EACH_SECOND


@given(STEPS)
def test_under_load_no_ten_seconds_have_more_than_a_fifth(steps: list[tuple[float, int, int]]) -> None:
    one, clock = budget()
    asked: list[int] = []
    retried: list[int] = []
    for seconds, new, wishes in steps:
        clock.pass_(seconds)
        first(one, new)
        # The window is right to a second: it looks back nine to ten of them.
        asked = [second for second in [*asked, *[int(clock.now)] * new] if second > int(clock.now) - 10]
        more = [int(clock.now)] * taken(one, wishes)
        retried = [second for second in [*retried, *more] if second > int(clock.now) - 10]
        if more and len(asked) >= 5:
            assert len(retried) <= len(asked) * 0.2


@given(st.integers(5, 200), st.integers(10, 40))
def test_a_steady_load_sees_no_more_than_a_fifth_more(per_second: int, seconds: int) -> None:
    one, clock = budget()
    retries = 0
    for _second in range(seconds):
        first(one, per_second)
        retries += taken(one, per_second)
        clock.pass_(1)
    assert retries <= per_second * seconds * 0.2
    assert retries >= per_second * seconds * 0.2 - 1
