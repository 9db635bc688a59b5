"""A request that another worker of a group begins anew: nobody joins two answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from inferbus_client import Restarted
from inferbus_client.contract.wire import Accepted, Delta, Done, ErrorReply, Failure
from inferbus_client.exchange.answer import Answer
from inferbus_client.exchange.assembly import AnyReply, Assembly
from inferbus_client.exchange.call import Addresses
from inferbus_client.exchange.waiters import Waiter, Waiters
from inferbus_client.mqtt.message import Incoming

IDS: dict[str, Any] = {"request_id": "r", "session_id": "s"}


def replies(words: Sequence[str], run: int = 0, worker: str | None = "gpu-1") -> list[AnyReply]:
    """The whole stream of one run."""
    stream: list[AnyReply] = [Accepted(queue_position=0, seq=0, run=run, worker=worker, **IDS)]
    stream += [Delta(text=word, seq=number, run=run, **IDS) for number, word in enumerate(words, 1)]
    return [*stream, Done(text="".join(words), seq=len(words) + 1, run=run, **IDS)]


def seen(assembly: Assembly, stream: Sequence[AnyReply]) -> list[str]:
    """What a caller sees: texts, and the restarts by their run."""
    shown: list[str] = []
    for reply in stream:
        for part in assembly.take(reply):
            if isinstance(part, Delta):
                shown.append(part.text)
            elif isinstance(part, Restarted):
                shown.append(f"<run {part.run} by {part.worker}>")
    return shown


FIRST, SECOND = replies(["one ", "two ", "three"]), replies(["uno ", "dos"], run=1, worker="gpu-2")


def test_a_higher_run_begins_anew_and_says_so() -> None:
    assembly = Assembly()
    assert seen(assembly, [*FIRST[:3], *SECOND]) == ["one ", "two ", "<run 1 by gpu-2>", "uno ", "dos"]
    assert assembly.answer is SECOND[-1]
    assert (assembly.lost, assembly.run) == (0, 1)


def test_what_a_lower_run_still_says_counts_no_more() -> None:
    assembly = Assembly()
    stream = [*FIRST[:2], SECOND[0], FIRST[2], SECOND[1], FIRST[3], FIRST[4], *SECOND[2:]]
    assert seen(assembly, stream) == ["one ", "<run 1 by gpu-2>", "uno ", "dos"]
    assert assembly.answer is SECOND[-1]
    assert assembly.lost == 0


def test_nothing_begins_anew_for_a_caller_that_has_seen_nothing() -> None:
    assembly = Assembly()
    assert seen(assembly, [FIRST[0], *SECOND]) == ["uno ", "dos"]


def test_an_answer_of_a_higher_run_alone_replaces_what_was_shown() -> None:
    assembly = Assembly()
    assert seen(assembly, [*FIRST[:2], SECOND[-1]]) == ["one ", "<run 1 by None>", "uno dos"]
    assert assembly.answer is SECOND[-1]


def test_an_error_of_a_higher_run_takes_nothing_back() -> None:
    assembly = Assembly()
    error = ErrorReply.of(Failure("overloaded"), request_id="r", session_id="s", seq=1, run=1)
    assert seen(assembly, [*FIRST[:2], error]) == ["one "]
    assert assembly.started
    assert assembly.failure == Failure("overloaded")


def test_a_loss_in_a_higher_run_leaves_no_hole() -> None:
    assembly = Assembly()
    assert seen(assembly, [*FIRST[:3], SECOND[0], SECOND[2], SECOND[3]])[2:] == ["<run 1 by gpu-2>", "uno dos"]
    assert assembly.lost == 1


def test_accepted_may_come_after_the_first_delta() -> None:
    assembly = Assembly()
    assert seen(assembly, [FIRST[1], FIRST[0], *FIRST[2:]]) == ["one ", "two ", "three"]
    assert (assembly.lost, assembly.duplicates) == (0, 0)


def test_accepted_may_never_come() -> None:
    assembly = Assembly()
    assert seen(assembly, FIRST[1:]) == ["one ", "two ", "three"]
    assert assembly.lost == 0


def test_accepted_that_comes_twice_is_no_word_of_a_second_worker() -> None:
    assembly = Assembly()
    assert "".join(seen(assembly, [*FIRST[:2], FIRST[0], *FIRST[2:]])) == "one two three"
    assert assembly.duplicates == 1


def test_a_worker_that_names_no_runs_cannot_mix_two_answers() -> None:
    """An older one, restarted; its first `accepted` was lost."""
    first, second = replies(["one ", "two"], worker=None), replies(["uno ", "dos ", "tres"], worker=None)
    assembly = Assembly()
    assert seen(assembly, [first[1], *second]) == ["one "]
    assert assembly.answer is second[-1]


@pytest.mark.parametrize("again", [FIRST[-1], Done(text="another", seq=9, **IDS)], ids=["the same", "another"])
def test_the_first_terminal_reply_counts(again: Done) -> None:
    assembly = Assembly()
    seen(assembly, [*FIRST, again])
    assert assembly.answer is FIRST[-1]
    assert assembly.duplicates == 1


def test_the_end_of_a_lower_run_does_not_end_the_wait() -> None:
    strays: list[AnyReply] = []
    waiters = Waiters(strays.append)
    heard: list[Any] = []
    call = Addresses("general", "me").request("hello", "s", stream=True, request_id="r")
    with waiters.waiting(call, heard.append):
        for reply in (SECOND[0], FIRST[-1], SECOND[1], SECOND[-1], SECOND[-1]):
            waiters.received(Incoming(call.reply_topic, reply.encode()))
    assert heard == [SECOND[0], SECOND[1], SECOND[-1]]
    assert strays == [FIRST[-1], SECOND[-1]]


def test_another_attempt_begins_at_the_first_run() -> None:
    waiter = Waiter(Addresses("general", "me").request("hello", "s", stream=True), lambda _: None)
    waiter.may_be_published()
    assert waiter.takes(SECOND[-1])
    waiter.may_be_published()
    assert waiter.takes(FIRST[0])


def test_a_repeat_of_an_attempt_stays_in_its_run() -> None:
    waiter = Waiter(Addresses("general", "me").request("hello", "s", stream=True), lambda _: None)
    waiter.may_be_published()
    assert waiter.takes(SECOND[0])
    waiter.may_be_published()
    assert not waiter.takes(FIRST[1])


def test_an_answer_says_its_run_where_it_was_not_the_first() -> None:
    assert "run" not in Answer("x", "s", "r").as_dict()
    assert Answer("x", "s", "r", run=1).as_dict()["run"] == 1
