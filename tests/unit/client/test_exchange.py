"""Exchange: attempts, timeouts and retries, in simulated time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from inferbus_client.contract.wire import Accepted, Code, Delta, Done, ErrorReply, Failure
from inferbus_client.errors import (
    ConnectionLostError,
    DeadlineExceededError,
    EngineFailedError,
    InvalidRequestError,
    RequestTimeoutError,
    UnavailableError,
)
from inferbus_client.exchange.answer import Answer
from inferbus_client.exchange.call import Addresses, Call
from inferbus_client.exchange.exchange import Exchange
from inferbus_client.exchange.pacing import Backoff, Pacer
from inferbus_client.exchange.steps import Event, Receive, Signal, TextReply, next_step
from inferbus_client.settings.client import Terms

CALL = Addresses("general", "me").request("hello", "s1", stream=True, request_id="r1")
IDS: dict[str, Any] = {"request_id": "r1", "session_id": "s1"}

Reactions = Iterable[tuple[float, Event]]


def accepted() -> Accepted:
    return Accepted(queue_position=0, seq=0, **IDS)


def delta(text: str, seq: int) -> Delta:
    return Delta(text=text, seq=seq, **IDS)


def done(text: str, seq: int = 1) -> Done:
    return Done(text=text, seq=seq, **IDS)


def interrupt() -> Reactions:
    raise KeyboardInterrupt


def error(code: Code, *, retry_after_ms: int | None = None, seq: int = 0) -> ErrorReply:
    return ErrorReply.of(Failure(code, retry_after_ms=retry_after_ms), seq=seq, **IDS)


@dataclass
class World:
    """A clock, a worker that reacts to every send after a while, and what it saw."""

    react: Callable[[int], Reactions]
    terms: Terms = field(default_factory=Terms)
    pacing: float = 0.0
    repeats_are_safe: bool = True
    connected: bool = True
    now: float = 0.0
    sends: list[tuple[float, Call, float]] = field(default_factory=list)
    cancels: int = 0
    shown: list[str] = field(default_factory=list)
    coming: list[tuple[float, Event]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pacer = Pacer(self.pacing, clock=lambda: self.now)

    def send(self, call: Call, remaining: float) -> bool:
        self.sends.append((self.now, call, remaining))
        self.coming += [(self.now + delay, event) for delay, event in self.react(len(self.sends))]
        return self.connected

    def cancel(self, _call: Call) -> None:
        self.cancels += 1

    def run(self) -> Answer:
        exchange = Exchange(
            CALL,
            self,
            self.terms,
            self.pacer,
            backoff=Backoff(base=1.0, uniform=lambda: 0.5),
            clock=lambda: self.now,
        )
        steps = exchange.steps()
        event: Event | None = None
        while (step := next_step(steps, event)) is not None:
            event = None
            if isinstance(step, Receive):
                event = self._wait(step.seconds)
            elif isinstance(step, Delta):
                self.shown.append(step.text)
        return exchange.result()

    def _wait(self, seconds: float) -> Event | None:
        self.coming.sort(key=lambda pair: pair[0])
        if self.coming and self.coming[0][0] <= self.now + seconds:
            at, event = self.coming.pop(0)
            self.now = max(self.now, at)
            return event
        self.now += seconds
        return None


def test_an_answer_carries_text_and_measured_times() -> None:
    world = World(lambda _: [(0.1, accepted()), (0.5, delta("hel", 1)), (0.8, delta("lo", 2)), (1.0, done("hello", 3))])
    answer = world.run()
    assert (answer.text, answer.session_id, answer.request_id) == ("hello", "s1", "r1")
    assert world.shown == ["hel", "lo"]
    assert (answer.first_token_s, answer.total_s) == (0.5, 1.0)
    assert (answer.attempts, answer.lost, world.cancels) == (1, 0, 0)


def test_a_retryable_failure_is_tried_again_with_the_same_id_and_growing_waits() -> None:
    world = World(lambda n: [(0.0, error("overloaded") if n < 3 else done("at last", 0))])
    answer = world.run()
    assert (answer.text, answer.attempts) == ("at last", 3)
    assert [at for at, _, _ in world.sends] == [0.0, 0.5, 1.5]
    assert {call.request_id for _, call, _ in world.sends} == {"r1"}


def test_a_retry_waits_as_long_as_the_worker_says() -> None:
    world = World(lambda n: [(0.0, error("rate_limited", retry_after_ms=7000) if n == 1 else done("now", 0))])
    world.run()
    assert world.sends[1][0] == 7.5


def test_retries_end() -> None:
    world = World(lambda _: [(0.0, error("overloaded"))], Terms(retries=2))
    with pytest.raises(UnavailableError) as caught:
        world.run()
    assert (caught.value.code, caught.value.retryable, len(world.sends)) == ("overloaded", True, 3)
    assert world.cancels == 0


@pytest.mark.parametrize(
    ("code", "expected"), [("invalid_request", InvalidRequestError), ("engine_error", EngineFailedError)]
)
def test_what_is_not_retryable_is_raised_at_once(code: Code, expected: type[Exception]) -> None:
    world = World(lambda _: [(0.0, error(code))])
    with pytest.raises(expected):
        world.run()
    assert len(world.sends) == 1


def test_no_retry_outlives_the_deadline() -> None:
    world = World(lambda _: [(0.0, error("rate_limited", retry_after_ms=30_000))], Terms(timeout=20))
    with pytest.raises(Exception, match="Rate limit"):
        world.run()
    assert (len(world.sends), world.now) == (1, 0.0)


def test_a_passed_deadline_is_final() -> None:
    world = World(lambda _: [(1.0, error("deadline_exceeded"))], Terms(timeout=100))
    with pytest.raises(DeadlineExceededError):
        world.run()
    assert len(world.sends) == 1


def test_every_attempt_says_what_is_left_of_the_deadline() -> None:
    world = World(lambda n: [(2.0, error("overloaded") if n == 1 else done("ok", 0))], Terms(timeout=10))
    world.run()
    assert [remaining for _, _, remaining in world.sends] == [10.0, 7.5]


def test_no_retry_after_the_caller_has_seen_part_of_an_answer() -> None:
    world = World(lambda _: [(0, accepted()), (0, delta("half", 1)), (0, error("shutting_down", seq=2))])
    with pytest.raises(UnavailableError):
        world.run()
    assert (len(world.sends), world.shown) == (1, ["half"])


def test_silence_is_answered_by_a_repeat_where_repeats_are_safe() -> None:
    world = World(lambda n: [] if n == 1 else [(0.0, done("again", 4))], Terms(first_timeout=5))
    assert world.run().text == "again"
    assert [at for at, _, _ in world.sends] == [0.0, 5.0]


def test_silence_is_an_error_where_a_repeat_might_generate_twice() -> None:
    world = World(lambda _: [], Terms(first_timeout=5), repeats_are_safe=False)
    with pytest.raises(RequestTimeoutError) as caught:
        world.run()
    assert (caught.value.what, caught.value.waited, world.now) == ("first sign of life", 5, 5.0)
    assert (len(world.sends), world.cancels) == (1, 1)


def test_a_stream_that_falls_silent_times_out_and_is_cancelled() -> None:
    world = World(lambda _: [(0, accepted()), (1, delta("a", 1))], Terms(silence_timeout=3, retries=0))
    with pytest.raises(RequestTimeoutError) as caught:
        world.run()
    assert (caught.value.what, world.now, world.cancels) == ("next delta", 4.0, 1)


def test_a_queued_request_may_wait_until_its_deadline() -> None:
    world = World(lambda _: [(0, accepted()), (90, done("late but in time"))], Terms(timeout=100, first_timeout=5))
    assert world.run().text == "late but in time"
    assert len(world.sends) == 1


def test_the_worker_may_say_itself_that_the_deadline_passed() -> None:
    world = World(lambda _: [(0, accepted()), (10.2, error("deadline_exceeded", seq=1))], Terms(timeout=10))
    with pytest.raises(DeadlineExceededError):
        world.run()


def test_nothing_outlives_the_deadline_by_more_than_the_grace() -> None:
    stream: list[tuple[float, Event]] = [(at / 10, delta("x", at)) for at in range(1, 400)]
    world = World(lambda _: [(0, accepted()), *stream], Terms(timeout=10))
    with pytest.raises(RequestTimeoutError, match="no answer"):
        world.run()
    assert 10 <= world.now <= 10.6


def test_an_interrupt_that_comes_with_the_publish_is_followed_by_a_cancel() -> None:
    world = World(lambda _: interrupt())
    with pytest.raises(KeyboardInterrupt):
        world.run()
    assert (len(world.sends), world.cancels) == (1, 1)


def test_a_repeat_that_no_connection_took_leaves_the_first_one_outstanding() -> None:
    world = World(lambda _: [(1.0, Signal.RECONNECTED)], Terms(first_timeout=5, retries=0))
    send = world.send
    world.send = lambda call, remaining: send(call, remaining) and len(world.sends) == 1  # type: ignore[method-assign]
    with pytest.raises(RequestTimeoutError):
        world.run()
    assert world.cancels == 1


def test_a_new_connection_repeats_the_request() -> None:
    world = World(lambda n: [(1.0, Signal.RECONNECTED)] if n == 1 else [(0.0, done("kept", 3))])
    assert world.run().text == "kept"
    assert len(world.sends) == 2


def test_a_repeat_that_waits_for_its_slot_does_not_hold_up_the_answer() -> None:
    world = World(lambda _: [(1.0, Signal.RECONNECTED), (2.0, delta("ke", 1)), (3.0, done("kept", 2))], pacing=10)
    assert world.run().text == "kept"
    assert (world.now, len(world.sends)) == (3.0, 1)


def test_a_repeat_whose_slot_comes_too_late_is_not_sent_and_the_answer_waited_for() -> None:
    world = World(lambda _: [(1.0, Signal.RECONNECTED), (7.0, done("kept", 1))], Terms(timeout=8), pacing=10)
    assert world.run().text == "kept"
    silent = World(lambda _: [(1.0, Signal.RECONNECTED)], Terms(timeout=8, first_timeout=2), pacing=10)
    with pytest.raises(RequestTimeoutError, match="no answer within 8 s"):
        silent.run()
    assert (silent.now, len(silent.sends), silent.cancels) == (8.5, 1, 1)


def test_a_worker_that_comes_back_later_than_we_do_is_asked_again_until_the_deadline() -> None:
    def react(send: int) -> Reactions:
        if send == 1:
            return [(0, accepted()), (1.0, Signal.RECONNECTED)]
        return [(3.0, done("kept", 1))] if send == 6 else []

    world = World(react, Terms(timeout=100, first_timeout=5, retries=0))
    assert world.run().text == "kept"
    assert [at for at, _, _ in world.sends] == [0.0, 1.0, 6.0, 11.0, 16.0, 21.0]


def test_a_worker_that_never_comes_back_costs_no_more_than_the_deadline() -> None:
    world = World(lambda n: [(1.0, Signal.RECONNECTED)] if n == 1 else [], Terms(timeout=20, first_timeout=5))
    with pytest.raises(RequestTimeoutError, match="no answer within 20 s"):
        world.run()
    assert world.now == 20.5


def test_a_new_connection_repeats_what_was_never_taken_even_for_a_text_worker() -> None:
    world = World(
        lambda n: [(1.0, Signal.RECONNECTED)] if n == 1 else [(0.0, done("kept", 3))],
        repeats_are_safe=False,
        connected=False,
    )
    assert world.run().text == "kept"


def test_a_lost_connection_ends_it() -> None:
    world = World(lambda _: [(1.0, ConnectionLostError("gone"))])
    with pytest.raises(ConnectionLostError, match="gone"):
        world.run()


def test_a_reply_in_text_is_an_answer() -> None:
    world = World(lambda _: [(0.0, TextReply("Bonjour"))], repeats_are_safe=False)
    answer = world.run()
    assert (answer.text, answer.usage, world.shown) == ("Bonjour", None, ["Bonjour"])


def test_a_sentence_of_the_table_is_a_failure() -> None:
    world = World(lambda _: [(0.0, TextReply("Error: The model failed to answer."))])
    with pytest.raises(EngineFailedError) as caught:
        world.run()
    assert caught.value.status == 500


def test_sends_are_paced() -> None:
    world = World(lambda _: [(0.0, done("ok", 0))], pacing=0.5)
    assert [world.run().text for _ in range(3)] == ["ok"] * 3
    assert [at for at, _, _ in world.sends] == [0.0, 0.5, 1.0]


def test_a_request_that_cannot_be_sent_in_time_takes_no_slot() -> None:
    world = World(lambda _: [(0.0, done("ok", 0))], Terms(timeout=5), pacing=8)
    world.run()
    for _ in range(200):
        with pytest.raises(RequestTimeoutError, match="free slot"):
            world.run()
    world.now = 8.0
    assert world.run().text == "ok"
    assert [at for at, _, _ in world.sends] == [0.0, 8.0]
