"""`inferbus stress --find-concurrency`: the steps it takes, and the number that it recommends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferbus_client.cli.stress.knee import Recommendation, Search
from inferbus_client.cli.stress.ledger import Ledger
from inferbus_client.cli.stress.plan import Plan
from inferbus_client.cli.stress.result import Result, Spread
from support.rooms import FakeClock


def result(
    clients: int, *, answered: int, first_token: float | None = None, wall: float = 1.0, **more: object
) -> Result:
    empty = Result.of(Plan(clients=clients), Ledger(), wall)
    sent = answered + sum(sum(codes.values()) for codes in more.values() if isinstance(codes, dict))
    spread = Spread.of([first_token])
    return replace(empty, answered=answered, sent=sent, first_token=spread, **more)  # type: ignore[arg-type]


def backend(clients: int, *, capacity: int, seconds: float = 1.0, first_token: float | None = 0.1) -> Result:
    """One that runs so many at once, each as long as alone, and lets the others wait."""
    at_once = min(clients, capacity)
    waits = (clients - at_once) / capacity * seconds
    first = None if first_token is None else first_token + waits
    return result(clients, answered=int(at_once / seconds * 10), wall=10, first_token=first)


def search(*, most: int = 1000, **behaviour: float | None) -> tuple[list[int], Recommendation]:
    """The steps it takes, and what it says in the end."""
    under_test = Search(most, clock=FakeClock())
    results: list[Result] = []
    while (clients := under_test.next(results)) is not None:
        results.append(backend(clients, **behaviour))  # type: ignore[arg-type]
        assert len(results) < 30
    return [one.plan.clients for one in results], under_test.recommend(results)


@pytest.mark.parametrize("capacity", [1, 2, 3, 5, 8, 13, 21, 64, 100, 256])
@pytest.mark.parametrize("first_token", [0.1, None])
def test_the_knee_is_the_capacity(capacity: int, first_token: float | None) -> None:
    steps, found = search(capacity=capacity, first_token=first_token)
    assert found.concurrency is not None
    assert capacity * 0.85 <= found.concurrency <= capacity * 1.15
    assert max(steps) <= max(capacity * 8, 4)
    assert len(steps) == len(set(steps)) <= 18


def test_it_doubles_until_that_has_brought_nothing_twice_then_looks_around() -> None:
    steps, found = search(capacity=8)
    assert steps == [1, 2, 4, 8, 16, 32, 6, 7]
    assert found.concurrency == 8
    assert found.rule == (
        "the least at once that reaches 95% of the best throughput (8 requests/s), "
        "with the first token (p95) within 2x of what it takes alone."
    )


def test_one_step_of_bad_luck_does_not_end_it() -> None:
    unlucky = Search(1000, clock=FakeClock())
    results = [result(1, answered=10), result(2, answered=20), result(4, answered=19)]
    assert unlucky.next(results[:1]) == 2
    assert unlucky.next(results[:2]) == 4
    assert unlucky.next(results) == 8


def test_never_more_than_the_most() -> None:
    steps, found = search(capacity=256, most=24)
    assert max(steps) == 24
    assert found.concurrency == 24
    assert found.remarks == ["It is the most that was tried: more may be better still."]
    assert search(capacity=256, most=1)[0] == [1]


def test_more_throughput_at_a_late_first_token_is_not_recommended() -> None:
    one = Search(1000, clock=FakeClock())
    results = [
        result(1, answered=10, first_token=0.1),
        result(2, answered=20, first_token=0.15),
        result(4, answered=40, first_token=0.5),
    ]
    assert one.recommend(results).concurrency == 2


def test_few_milliseconds_more_are_no_late_first_token() -> None:
    results = [result(1, answered=10, first_token=0.001), result(2, answered=20, first_token=0.015)]
    assert Search(1000, clock=FakeClock()).recommend(results).concurrency == 2


def test_a_rate_limit_that_hides_the_curve_is_said_and_not_tried_again() -> None:
    one = Search(1000, clock=FakeClock())
    results = [result(1, answered=10), result(2, answered=20), result(4, answered=3, refused={"rate_limited": 37})]
    for known in range(3):
        assert one.next(results[:known]) == 2**known
    assert one.next(results) is None
    found = one.recommend(results)
    assert found.concurrency is None
    assert found.remarks[0].startswith(
        "The worker's rate limit hides the curve from 4 at once on: it refused 37 of 40 requests."
    )


def test_where_a_worker_refuses_it_looks_below() -> None:
    one = Search(1000, clock=FakeClock())
    results = [result(1, answered=10), result(2, answered=20), result(4, answered=10, refused={"overloaded": 30})]
    for known in range(3):
        assert one.next(results[:known]) == 2**known
    assert one.next(results) == 3
    results.append(result(3, answered=30))
    assert one.next(results) is None
    found = one.recommend(results)
    assert found.concurrency == 3
    assert found.remarks == ["With 4 at once too many were not answered (overloaded 30)."]


def test_where_nobody_answers_nothing_is_recommended() -> None:
    one = Search(1000, clock=FakeClock())
    results = [result(1, answered=0, lost=3)]
    assert one.next([]) == 1
    assert one.next(results) is None
    found = one.recommend(results)
    assert (found.concurrency, found.remarks) == (None, ["With 1 at once too many were not answered (lost 3)."])


def test_after_ten_minutes_no_further_step_begins() -> None:
    clock = FakeClock()
    one = Search(1000, clock=clock)
    results = [result(1, answered=10)]
    assert one.next(results) == 2
    clock.pass_(600)
    results.append(result(2, answered=20))
    assert one.next(results) is None
    found = one.recommend(results)
    assert (found.concurrency, found.remarks) == (2, ["It took 10 minutes; no further step was begun."])
