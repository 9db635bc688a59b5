"""The gate that a batch's requests go through, and what is said of how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from inferbus_client.cli.batch.pace import Pace
from inferbus_client.cli.batch.progress import Tally
from inferbus_client.exchange.pacing import Backoff

EXACT = Backoff(base=0.0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def entered(pace: Pace, wanted: int) -> int:
    """How many of so many get a place at once."""
    tasks = [asyncio.create_task(pace.enter()) for _ in range(wanted)]
    for _ in range(3):
        await asyncio.sleep(0)
    got = sum(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return got


def test_no_more_than_so_many_at_once() -> None:
    async def run() -> list[int]:
        pace = Pace(3)
        first = await entered(pace, 5)
        pace.leave()
        return [first, await entered(pace, 5)]

    assert asyncio.run(run()) == [3, 1]


def test_a_refusal_is_a_pause_for_all_and_then_fewer_go() -> None:
    async def run() -> list[int]:
        clock = Clock()
        pace = Pace(8, backoff=EXACT, clock=clock)
        assert await entered(pace, 8) == 8
        for _ in range(8):  # all that were under way hear the same: it is one refusal
            pace.refused(0.0, 5.0)
            pace.leave()
        found = [await entered(pace, 8)]
        clock.now = 5.1
        found.append(await entered(pace, 8))
        return found

    assert asyncio.run(run()) == [0, 4]


def test_one_always_goes_and_answers_bring_the_others_back() -> None:
    clock = Clock()
    pace = Pace(8, backoff=EXACT, clock=clock)
    for _ in range(10):
        clock.now += 1
        pace.refused(clock.now, 0.0)
    assert pace.at_once == 1
    for _ in range(100):
        pace.answered()
    assert pace.at_once == 8


def test_what_is_allowed_later_holds_from_then_on() -> None:
    clock = Clock()
    pace = Pace(2, backoff=EXACT, clock=clock)
    allowed = []
    for most in (4, 3, 8):
        pace.allow(most)
        allowed.append(pace.at_once)
    clock.now += 1
    pace.refused(clock.now, 0.0)
    for most in (16, 2):
        pace.allow(most)
        allowed.append(pace.at_once)
    assert allowed == [4, 3, 8, 4, 2]


def test_trouble_lasts_until_there_is_an_answer() -> None:
    clock = Clock()
    pace = Pace(8, backoff=EXACT, clock=clock)
    found = []
    steps: tuple[tuple[float, Callable[[], None]], ...] = (
        (3.0, lambda: pace.refused(3.0, 1.0)),
        (4.0, lambda: pace.refused(4.0, 1.0)),
        (5.0, pace.answered),
        (6.0, lambda: pace.hold("nobody is there")),
        (7.0, lambda: pace.hold("")),
    )
    for now, happen in steps:
        clock.now = now
        happen()
        found.append(pace.troubled_since)
    assert found == [3.0, 3.0, None, 6.0, 6.0]


def test_what_is_held_goes_when_it_is_let_go() -> None:
    async def run() -> float:
        pace = Pace(1)
        pace.hold("nobody is there")
        task = asyncio.create_task(pace.enter())
        await asyncio.sleep(0)
        assert not task.done()
        pace.hold("")
        async with asyncio.timeout(5):
            return await task

    assert asyncio.run(run()) > 0


@pytest.mark.parametrize(
    ("seconds", "answered", "words"),
    [
        (0, 0, "waiting"),
        (10, 100, "10/s, 1 min 30 s left"),
        (10, 1, "0.1/s, 2 h 46 min left"),
        (10, 990, "99/s, 0 s left"),
    ],
)
def test_rate_and_expected_time(seconds: float, answered: int, words: str) -> None:
    clock = Clock()
    tally = Tally(1000, 0, clock=clock)
    clock.now, tally.answered = seconds, answered
    assert tally.words() == words


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    clock = Clock()
    tally = Tally(10_000, 0, clock=clock)
    for second in range(120):
        clock.now = second
        tally.answered += 100 if second < 60 else 1
        tally.words()
    assert tally.words().startswith("1/s, ")


def test_the_summary_accounts_for_all() -> None:
    clock = Clock()
    tally = Tally(10, 3, clock=clock)
    clock.now, tally.answered, tally.failed = 2.0, 4, 1
    assert tally.summary() == "7 of 10 answered (3 before), 1 failed, 2 left; 2 s, 2.5/s"
