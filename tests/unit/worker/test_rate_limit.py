"""The sliding window: exact, on an injected clock, bounded in keys."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.state.memory.windows import RateLimiter
from support.rooms import FakeClock


@dataclass
class Alone:
    """A limiter that decides by itself."""

    limiter: RateLimiter
    clock: FakeClock

    def admit(self, key: object) -> float | None:
        """Count a request, or say how long to wait."""
        times = self.limiter.times(key)
        wait = self.limiter.seconds_until_room(times, self.clock())
        if wait:
            return wait
        self.limiter.count(key, times, self.clock())
        return None

    def __len__(self) -> int:
        return len(self.limiter)


def limiter(limit: int, window: float, **more: int) -> tuple[Alone, FakeClock]:
    clock = FakeClock()
    return Alone(RateLimiter(RateLimit(limit, window), clock=clock, **more), clock), clock


def test_the_eleventh_is_refused() -> None:
    limit, _ = limiter(10, 60)
    assert [limit.admit("s") for _ in range(10)] == [None] * 10
    assert limit.admit("s") == 60


def test_it_says_when_the_next_one_may_come() -> None:
    limit, clock = limiter(2, 60)
    limit.admit("s")
    clock.pass_(20)
    limit.admit("s")
    clock.pass_(10)
    assert limit.admit("s") == 30
    clock.pass_(30)
    assert limit.admit("s") is None
    assert limit.admit("s") == 20


def test_it_slides_instead_of_starting_anew() -> None:
    limit, clock = limiter(2, 60)
    limit.admit("s")
    clock.pass_(59)
    limit.admit("s")
    clock.pass_(2)  # the first has left the window, the second has not
    assert limit.admit("s") is None
    assert limit.admit("s") is not None


def test_refused_requests_do_not_count() -> None:
    limit, clock = limiter(1, 60)
    limit.admit("s")
    for _ in range(50):
        assert limit.admit("s") is not None
        clock.pass_(1)
    clock.pass_(10)
    assert limit.admit("s") is None


def test_sessions_do_not_share_a_window() -> None:
    limit, _ = limiter(1, 60)
    assert limit.admit(("p", "a")) is None
    assert limit.admit(("p", "b")) is None
    assert limit.admit(("q", "a")) is None


def test_asking_counts_nothing() -> None:
    limit, clock = limiter(1, 60)
    assert [limit.limiter.seconds_until_room(limit.limiter.times("s"), clock()) for _ in range(5)] == [0] * 5
    assert len(limit) == 0


def test_a_large_limit_is_as_exact_and_drops_its_oldest_at_no_cost() -> None:
    limit, clock = limiter(1000, 60)
    for _ in range(1000):
        assert limit.admit("s") is None
        clock.pass_(0.03125)
    assert limit.admit("s") == 60 - 1000 * 0.03125
    clock.pass_(60 - 1000 * 0.03125)
    assert [limit.admit("s"), limit.admit("s")] == [None, 0.03125]
    assert isinstance(limit.limiter.times("s"), deque)


def test_the_number_of_keys_is_bounded() -> None:
    limit, _ = limiter(1, 60, max_keys=5)
    for key in range(100):
        limit.admit(key)
    assert len(limit) == 5


def test_keys_are_forgotten_after_their_window() -> None:
    limit, clock = limiter(3, 60)
    limit.admit("s")
    clock.pass_(60)
    assert len(limit) == 0


@given(
    limit=st.integers(1, 5),
    window=st.integers(1, 20),
    steps=st.lists(st.tuples(st.integers(0, 12), st.sampled_from("ab")), max_size=80),
)
def test_it_equals_a_naive_model(limit: int, window: int, steps: list[tuple[int, str]]) -> None:
    """The model keeps every admitted request for ever, and counts those of the last window."""
    under_test, clock = limiter(limit, window)
    admitted: list[tuple[float, str]] = []
    for wait, key in steps:
        clock.pass_(wait)
        inside = sorted(at for at, whose in admitted if whose == key and at > clock.now - window)
        verdict = under_test.admit(key)
        if len(inside) < limit:
            assert verdict is None
            admitted.append((clock.now, key))
        else:
            assert verdict == inside[-limit] + window - clock.now
