"""The breaker of a slot: when it opens, when it is tried again, and what it says of it."""

from __future__ import annotations

import threading

import pytest

from inferbus_worker.engines.breaker import Breaker
from support.rooms import FakeClock


def breaker(random: float = 0.0) -> tuple[Breaker, FakeClock]:
    clock = FakeClock()
    return Breaker("phi/ollama", clock=clock, uniform=lambda: random), clock


def opened(random: float = 0.0) -> tuple[Breaker, FakeClock]:
    one, clock = breaker(random)
    one.trip("it keeps silent")
    return one, clock


def probe(one: Breaker, clock: FakeClock) -> float:
    """Wait for the next probe; how long that was."""
    waited = one.retry_after
    assert not one.may_probe()
    clock.pass_(waited)
    assert one.may_probe()
    return waited


def test_one_request_that_fails_with_its_retries_opens_nothing_and_five_in_a_row_do() -> None:
    one, _ = breaker()
    for _failure in range(4):
        one.failed("reset")
        assert one.is_closed
    one.failed("reset")
    assert (one.state, one.retry_after) == ("open", 1.0)


def test_an_answer_between_them_begins_the_row_anew() -> None:
    one, _ = breaker()
    for _turn in range(3):
        for _answer in range(5):
            one.succeeded()
        for _failure in range(4):
            one.failed("reset")
    assert one.is_closed


def test_more_than_half_of_at_least_ten_open_it() -> None:
    one, _ = breaker()
    for _pair in range(5):
        one.succeeded()
        one.failed("500")
    assert one.is_closed
    one.failed("500")
    assert one.state == "open"


def test_what_lies_more_than_ten_seconds_back_is_forgotten() -> None:
    one, clock = breaker()
    for _pair in range(5):
        one.failed("500")
        one.succeeded()
        clock.pass_(2.5)
    one.failed("500")
    one.failed("500")
    assert one.is_closed


def test_silence_and_leaks_open_it_at_once() -> None:
    assert opened()[0].state == "open"


def test_it_is_tried_once_when_its_pause_is_over() -> None:
    one, clock = opened()
    clock.pass_(0.99)
    assert not one.may_probe()
    clock.pass_(0.01)
    assert one.may_probe()
    assert one.state == "half-open"
    assert not one.may_probe()
    one.succeeded()
    assert (one.state, one.retry_after) == ("closed", 0)
    assert not one.may_probe()


def test_a_probe_that_fails_doubles_the_pause_up_to_thirty_seconds() -> None:
    one, clock = opened()
    waited = []
    for _try in range(7):
        waited.append(probe(one, clock))
        one.failed("connection refused")
    assert waited == [1, 2, 4, 8, 16, 30, 30]


def test_chance_adds_up_to_as_much_again() -> None:
    one, clock = opened(0.5)
    assert probe(one, clock) == 1.5
    one.failed("connection refused")
    assert one.retry_after == 3


def test_one_that_answers_probes_and_fails_requests_is_not_back_each_second() -> None:
    one, clock = opened()
    probe(one, clock)
    one.succeeded()
    clock.pass_(29)
    one.trip("it keeps silent")
    assert one.retry_after == 2
    probe(one, clock)
    one.succeeded()
    clock.pass_(30)
    one.trip("it keeps silent")
    assert one.retry_after == 1


def test_what_ends_while_it_is_open_changes_nothing() -> None:
    one, clock = opened()
    one.succeeded()
    one.failed("cut")
    one.trip("it keeps silent")
    assert (one.state, one.retry_after) == ("open", 1.0)
    probe(one, clock)
    one.succeeded()
    for _failure in range(4):
        one.failed("reset")
    assert one.is_closed


def test_a_probe_whose_end_nobody_told_is_taken_for_lost() -> None:
    one, clock = opened()
    probe(one, clock)
    assert probe(one, clock) == 60
    assert one.state == "half-open"


def test_each_change_is_one_line_that_says_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "inferbus.slots")
    one, clock = breaker()
    for _failure in range(5):
        one.failed("\x1b[2J\nfake")
    probe(one, clock)
    one.failed("connection refused")
    one.trip("again")
    probe(one, clock)
    one.succeeded()
    assert [record.getMessage() for record in caplog.records] == [
        r"phi/ollama: breaker closed -> open: 5 failures in a row, the last: \x1b[2J fake; it is left alone for 1.0 s",
        "phi/ollama: breaker open -> half-open: its pause is over: one token is asked of it",
        "phi/ollama: breaker half-open -> open: connection refused; it is left alone for 2.0 s",
        "phi/ollama: breaker open -> half-open: its pause is over: one token is asked of it",
        "phi/ollama: breaker half-open -> closed: it answers again",
    ]


def test_a_long_reason_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "inferbus.slots")
    breaker()[0].trip("x" * 100_000)
    assert len(caplog.records[0].getMessage()) < 300


def test_of_many_threads_one_may_probe() -> None:
    one, clock = opened()
    clock.pass_(1)
    allowed: list[bool] = []
    threads = [threading.Thread(target=lambda: allowed.append(one.may_probe())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(allowed) == 1
