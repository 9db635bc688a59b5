"""One request's replies: numbered, coalesced, ended once, in either half of the contract."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferbus_client.contract.topics import is_mqtt_string
from inferbus_client.contract.wire import Failure
from inferbus_worker.outcome import Answered
from inferbus_worker.replies.address import ReplyAddress
from inferbus_worker.replies.outgoing import Outgoing
from inferbus_worker.replies.stream import Backlog, ReplyStream


class Stream:
    """A reply stream, and how often it asked for the sender."""

    def __init__(self, *, in_json: bool = True) -> None:
        self.submitted = 0
        self.backlog = Backlog()
        address = ReplyAddress("t", "r1", "s1", json=in_json, correlation_data=b"c")
        self.replies = ReplyStream(address, self._submit, self.backlog)

    def _submit(self, stream: ReplyStream) -> None:
        assert stream is self.replies
        self.submitted += 1

    def outgoing(self) -> list[Outgoing]:
        return list(self.replies.outgoing())

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(message.payload) for message in self.outgoing()]


def test_what_piles_up_becomes_one_message() -> None:
    stream = Stream()
    for word in ("one ", "two ", "three"):
        stream.replies.delta(word)
    assert stream.submitted == 1
    assert [(reply["text"], reply["seq"]) for reply in stream.said()] == [("one two three", 0)]


def test_what_comes_later_is_another() -> None:
    stream = Stream()
    stream.replies.delta("one ")
    first = stream.said()
    stream.replies.delta("two")
    assert stream.submitted == 2
    assert [reply["text"] for reply in first + stream.said()] == ["one ", "two"]


def test_all_at_once_comes_in_its_order() -> None:
    stream = Stream()
    stream.replies.accepted(3, 250)
    stream.replies.delta("one")
    stream.replies.end(Answered("one"))
    said = stream.said()
    assert [(reply["type"], reply["seq"]) for reply in said] == [("accepted", 0), ("delta", 1), ("done", 2)]
    assert (said[0]["queuePosition"], said[0]["etaMs"]) == (3, 250)


def test_only_the_last_is_terminal_and_has_a_status() -> None:
    stream = Stream()
    stream.replies.accepted(0, None)
    stream.replies.delta("one")
    stream.replies.end(Failure("overloaded", retry_after_ms=5))
    assert [(message.terminal, message.status) for message in stream.outgoing()] == [
        (False, None),
        (False, None),
        (True, "overloaded"),
    ]


def test_the_text_half_says_the_answer_and_nothing_else() -> None:
    stream = Stream(in_json=False)
    stream.replies.accepted(0, None)
    stream.replies.delta("one")
    assert stream.submitted == 0
    stream.replies.end(Answered("one"))
    (message,) = stream.outgoing()
    assert (message.payload, message.status, message.json) == (b"one", "ok", False)


def test_a_failure_in_text_is_its_sentence() -> None:
    stream = Stream(in_json=False)
    stream.replies.end(Failure("rate_limited", retry_after_ms=1500))
    (message,) = stream.outgoing()
    assert message.payload == b"Error: Rate limit exceeded. Please slow down your requests."
    assert (message.status, message.retry_after_ms) == ("rate_limited", 1500)


@pytest.mark.parametrize("in_json", [True, False])
def test_a_lone_surrogate_becomes_a_question_mark(in_json: bool) -> None:  # noqa: FBT001
    """It cannot be encoded: the terminal reply that held one was once lost."""
    stream = Stream(in_json=in_json)
    stream.replies.delta("a\ud800", "b\udfff")
    stream.replies.end(Answered("a\ud800", reasoning="b\udfff"))
    if not in_json:
        assert [message.payload for message in stream.outgoing()] == [b"a?"]
        return
    delta, done = stream.said()
    assert (delta["text"], delta["reasoning"]) == (done["text"], done["reasoning"]) == ("a?", "b?")


def test_the_backlog_is_what_waits() -> None:
    stream, address = Stream(), len("t" + "r1" + "c")
    stream.replies.delta("12345", "67")
    assert stream.backlog.size == address + sys.getsizeof("12345") + sys.getsizeof("67")
    stream.replies.end(Answered("12345"))
    assert stream.backlog.size == address + 2 * sys.getsizeof("12345") + sys.getsizeof("67")
    stream.outgoing()
    assert stream.backlog.size == 0


def test_the_backlog_counts_memory_not_characters() -> None:
    stream = Stream()
    stream.replies.end(Answered("\U0001f600" * 1000))
    assert stream.backlog.size >= 4000


@given(st.lists(st.one_of(st.text(min_size=1, max_size=5), st.none()), max_size=40))
def test_however_the_sender_comes_by(steps: list[str | None]) -> None:
    """None is the sender's visit. Nothing is lost, the numbers have no gap, and the whole text is the deltas'."""
    stream = Stream()
    said: list[dict[str, Any]] = []
    for step in steps:
        if step is None:
            said += stream.said()
        else:
            stream.replies.delta(step)
    whole = "".join(step for step in steps if step is not None)
    stream.replies.end(Answered(whole))
    said += stream.said()
    assert [reply["seq"] for reply in said] == list(range(len(said)))
    assert [reply["type"] for reply in said].count("done") == 1
    assert said[-1]["type"] == "done"
    assert "".join(reply["text"] for reply in said[:-1]) == said[-1]["text"]
    assert stream.backlog.size == 0
    assert stream.said() == []


@pytest.mark.parametrize("text", ["", "r1", "é", "😀", "-[]^\\", "\ufdcf", "\ufdf0", "\ufffd"])
def test_what_mqtt_takes(text: str) -> None:
    assert is_mqtt_string(text)


@pytest.mark.parametrize(
    "text",
    [
        "\x00",
        "a\nb",
        "\x7f",
        "\x9f",
        "\ud800",
        chr(0xDFFF),
        "\ufdd0",
        "\ufdef",
        "\ufffe",
        "\uffff",
        "\U0001fffe",
        "\U0010ffff",
    ],
)
def test_what_mqtt_does_not_take(text: str) -> None:
    assert not is_mqtt_string(f"a{text}b")
