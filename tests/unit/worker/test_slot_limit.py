"""The limit that finds itself: up while the first token holds, down on refusals, crowding and a rate that runs out."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from inferbus_worker.engines.limit import AdaptiveLimit, FixedLimit
from support.rooms import FakeClock


def adaptive(natural: int = 256) -> tuple[AdaptiveLimit, FakeClock]:
    clock = FakeClock()
    return AdaptiveLimit("phi/ollama", natural, clock=clock), clock


def window(limit: AdaptiveLimit, clock: FakeClock, first_token: float | None = 0.1, active: int | None = None) -> int:
    """Ten answers within a window; the limit after it."""
    for _answer in range(10):
        clock.pass_(0.6)
        limit.answered(first_token, limit.value if active is None else active)
    return limit.value


def test_a_fixed_limit_stays() -> None:
    limit = FixedLimit(8)
    limit.refused("429")
    limit.answered(9, 8)
    limit.headroom(0.0)
    assert limit.value == 8


def test_it_begins_low_and_doubles_while_nothing_speaks_against_it() -> None:
    limit, clock = adaptive()
    assert limit.value == 4
    assert [window(limit, clock) for _ in range(7)] == [8, 16, 32, 64, 128, 256, 256]


@pytest.mark.parametrize("natural", [1, 2, 4])
def test_it_is_never_more_than_the_natural_one(natural: int) -> None:
    limit, clock = adaptive(natural)
    assert limit.value == natural
    assert window(limit, clock) == natural


def test_it_grows_only_when_it_was_reached() -> None:
    limit, clock = adaptive()
    assert [window(limit, clock, active=3) for _ in range(3)] == [4, 4, 4]


def test_it_halves_on_a_refusal_once_in_a_window() -> None:
    limit, clock = adaptive()
    window(limit, clock), window(limit, clock)
    assert limit.value == 16
    for _refusal in range(16):
        limit.refused("429")
    assert limit.value == 8
    clock.pass_(5)
    limit.refused("503")
    assert limit.value == 4


def test_it_never_goes_below_one_and_comes_up_again() -> None:
    limit, clock = adaptive(8)
    for _refusal in range(10):
        limit.refused("529")
        clock.pass_(5)
    assert limit.value == 1
    ways = [window(limit, clock) for _ in range(16)]
    assert ways[-1] == 8
    assert ways == sorted(ways)
    assert all(after - before <= 1 for before, after in pairwise(ways))


def test_a_first_token_over_twice_its_best_brings_it_down() -> None:
    limit, clock = adaptive()
    window(limit, clock, 0.1)
    assert window(limit, clock, 0.25) == 6


def test_between_holding_and_twice_the_best_it_stays() -> None:
    limit, clock = adaptive()
    window(limit, clock, 0.1)
    assert [window(limit, clock, 0.18) for _ in range(5)] == [8] * 5


def test_single_values_change_nothing() -> None:
    limit, clock = adaptive(8)
    window(limit, clock)
    for first_token in [0.1, 9.0, 0.1, 0.1, 9.0, 0.1, 0.1, 9.0, 0.1, 0.1]:
        clock.pass_(0.6)
        limit.answered(first_token, 8)
    assert limit.value == 8


def test_what_was_begun_under_the_old_limit_is_not_held_against_the_new_one() -> None:
    limit, clock = adaptive()
    window(limit, clock, 0.1)
    assert window(limit, clock, 20) == 6
    # Those that waited for their first token beside it come in during the next 20 s.
    for _late in range(20):
        clock.pass_(0.9)
        limit.answered(20, 6)
    assert limit.value == 6


def test_fast_first_tokens_are_no_measure_of_load() -> None:
    limit, clock = adaptive()
    window(limit, clock, 0.001)
    assert window(limit, clock, 0.009) == 16


def test_the_best_is_forgotten_slowly() -> None:
    limit, clock = adaptive(8)
    window(limit, clock, 0.1)
    # The prompts have become longer for good: what is usual now becomes the measure in the end.
    values = [window(limit, clock, 0.3) for _ in range(200)]
    assert min(values) < 8
    assert values[-1] == 8


def test_times_that_stay_between_the_bounds_are_measured_anew_with_fewer() -> None:
    limit, clock = adaptive(8)
    window(limit, clock, 0.1)
    values = [window(limit, clock, 0.18) for _ in range(200)]
    assert min(values) == 4
    assert values[-1] == 8


def test_a_rate_limit_that_runs_out_brings_it_down_and_keeps_it_there() -> None:
    limit, clock = adaptive()
    window(limit, clock)
    limit.headroom(0.19)
    assert limit.value == 6
    limit.headroom(0.1)
    assert limit.value == 6
    clock.pass_(5)
    assert window(limit, clock) == 6
    limit.headroom(0.9)
    assert window(limit, clock) == 7


@pytest.mark.parametrize("share", [None, 1.0, 0.2, float("nan"), float("inf")])
def test_a_rate_limit_with_room_or_none_changes_nothing(share: float | None) -> None:
    limit, clock = adaptive()
    limit.headroom(share)
    assert window(limit, clock) == 8


def test_without_first_tokens_it_goes_by_refusals_alone() -> None:
    limit, clock = adaptive()
    assert window(limit, clock, None) == 8
    limit.refused("503")
    assert limit.value == 4


def test_each_step_is_one_line_that_says_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "inferbus.slots")
    limit, clock = adaptive()
    window(limit, clock)
    limit.refused("429")
    clock.pass_(5)
    limit.headroom(0.1)
    clock.pass_(5)
    limit.headroom(None)
    window(limit, clock, 0.3)
    assert [record.getMessage() for record in caplog.records] == [
        "phi/ollama: limit 4 -> 8: the first token holds at 100 ms with 4 at once",
        "phi/ollama: limit 8 -> 4: the backend refused (429)",
        "phi/ollama: limit 4 -> 3: 10% of the backend's rate limit is left",
        "phi/ollama: limit 3 -> 2: the first token takes 300 ms, at best 100 ms",
    ]


def test_it_settles_near_the_knee_of_a_backend_that_queues() -> None:
    """A backend with room for 20: with more at once the first token waits for a place."""
    limit, clock = adaptive()
    chance = random.Random(1)  # noqa: S311 - the same each time, no secret
    seen = []
    for _answer in range(20_000):
        at_once = limit.value
        clock.pass_(1.0 / min(at_once, 20))
        waiting = max(at_once - 20, 0) / 20
        limit.answered(chance.uniform(0.08, 0.12) + waiting * 0.5, at_once)
        seen.append(limit.value)
    late = seen[len(seen) // 2 :]
    assert max(late) <= 30
    assert sum(late) / len(late) >= 15
