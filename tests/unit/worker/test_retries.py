"""Idempotent retries: in flight, remembered, aged out, bounded in bytes."""

from __future__ import annotations

from inferbus_client.contract.wire import Failure
from inferbus_worker.outcome import Answered
from inferbus_worker.state.keys import RetryKey
from inferbus_worker.state.memory.idempotency import RecentRequests
from inferbus_worker.state.protocols import Finished
from support.rooms import FakeClock


def key(request: str = "r1", session: str | None = "s1") -> RetryKey:
    return RetryKey("general", session, "c1", request)


def finished(text: str = "hello", reasoning: str | None = None) -> Finished:
    return Finished("s1", Answered(text, reasoning=reasoning))


def test_a_new_one_is_not_known() -> None:
    assert RecentRequests(10_000, 60).known(key()) is None


def test_in_flight_until_it_ends() -> None:
    recent = RecentRequests(10_000, 60)
    recent.started(key())
    assert recent.known(key()) == "in flight"
    recent.finished(key(), finished())
    assert recent.known(key()) == finished()


def test_a_failure_that_may_be_retried_is_not_remembered() -> None:
    recent = RecentRequests(10_000, 60)
    recent.started(key())
    recent.finished(key(), Finished("s1", Failure("shutting_down")))
    assert recent.known(key()) is None


def test_a_final_failure_is_remembered() -> None:
    recent = RecentRequests(10_000, 60)
    recent.finished(key(), Finished("s1", Failure("engine_error")))
    assert recent.known(key()) == Finished("s1", Failure("engine_error"))


def test_it_is_forgotten_with_time() -> None:
    clock = FakeClock()
    recent = RecentRequests(10_000, 60, clock=clock)
    recent.finished(key(), finished())
    clock.pass_(59)
    assert recent.known(key()) == finished()
    clock.pass_(2)
    assert recent.known(key()) is None


def test_what_is_in_flight_does_not_age() -> None:
    clock = FakeClock()
    recent = RecentRequests(10_000, 60, clock=clock)
    recent.started(key())
    clock.pass_(10_000)
    assert recent.known(key()) == "in flight"


def test_memory_is_bounded_by_bytes() -> None:
    recent = RecentRequests(100_000, 60)
    for number in range(1000):
        recent.finished(key(f"r{number}"), finished("x" * 2000))
    assert 0 < len(recent) <= 100_000 // 2000
    assert 50_000 < recent.levels()["retryMemoryBytes"][0] <= 100_000
    assert recent.known(key("r999")) is not None
    assert recent.known(key("r0")) is None


def test_long_ids_count() -> None:
    recent = RecentRequests(100_000, 60)
    for number in range(1000):
        recent.finished(
            RetryKey("general", "s" * 128, "\U0001f600" * 128, f"{number:04}" + "\U0001f600" * 124), finished("x")
        )
    assert 0 < len(recent) <= 100_000 // 2000


def test_reasoning_counts() -> None:
    recent = RecentRequests(100_000, 60)
    for number in range(100):
        recent.finished(key(f"r{number}"), finished("x", reasoning="y" * 5000))
    assert 0 < len(recent) <= 100_000 // 5000


def test_one_that_is_larger_than_all_of_it_is_not_kept() -> None:
    recent = RecentRequests(1000, 60)
    recent.started(key())
    recent.finished(key(), finished("x" * 10_000))
    assert recent.known(key()) is None


def test_no_memory_at_all() -> None:
    recent = RecentRequests(0, 0)
    recent.started(key())
    recent.finished(key(), finished())
    assert recent.known(key()) is None


def test_the_same_ids_in_another_session_are_another_request() -> None:
    recent = RecentRequests(10_000, 60)
    recent.finished(key(), finished())
    assert recent.known(key(session="s2")) is None
    assert recent.known(key(session=None)) is None
