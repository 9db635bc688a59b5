"""What lies in the store: whoever reads it finds what was written, and what is none is refused in one way."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferbus_client.contract.wire import Failure, Request
from inferbus_client.contract.wire.failures import Code
from inferbus_worker.chat import Usage
from inferbus_worker.group.writing import (
    Body,
    Ended,
    UnreadableError,
    read_body,
    read_change,
    read_conversation,
    read_ended,
    read_terminal,
    write_body,
    write_change,
    write_ended,
    write_terminal,
    write_turn,
)
from inferbus_worker.outcome import Answered, Timings
from inferbus_worker.replies.address import ReplyAddress
from inferbus_worker.replies.outgoing import Outgoing
from inferbus_worker.state.conversation import Change, Conversation, remembered
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.protocols import Finished
from support.tool_calls import called

#: Lone surrogates and NULs among them, which models say.
TEXTS = st.text(st.characters(exclude_categories=[]), max_size=40)
NAMES = st.text(max_size=20)
SECONDS = st.floats(0, 1e6)
ADDRESSES = st.builds(
    ReplyAddress,
    NAMES,
    NAMES,
    NAMES,
    st.booleans(),
    st.none() | st.binary(max_size=40),
    run=st.just(0),
    first_seq=st.just(0),
    trace=st.none(),
    receipt=st.none(),
    worker=st.none(),
)
KEYS = st.builds(SessionKey, NAMES, NAMES, st.none() | NAMES, st.none() | NAMES)
CALLS = st.lists(st.builds(called, NAMES, TEXTS, NAMES), max_size=2).map(tuple)
ANSWERS = st.builds(
    Answered,
    text=TEXTS,
    finish_reason=st.sampled_from(["stop", "length", "tool_calls"]),
    usage=st.none() | st.builds(Usage, st.integers(0, 10**9), st.integers(0, 10**9)),
    timings=st.none() | st.builds(Timings, SECONDS, st.none() | SECONDS, SECONDS),
    reasoning=st.none() | TEXTS,
    model=st.none() | NAMES,
    tool_calls=CALLS,
)
CODES = st.sampled_from(get_args(Code))
FAILURES = st.builds(Failure, CODES, detail=TEXTS, retry_after_ms=st.none() | st.integers(0, 10**9))
MESSAGES = st.builds(
    lambda role, content, tokens: remembered({"role": role, "content": content}, tokens),
    st.sampled_from(["user", "assistant", "tool"]),
    TEXTS,
    st.integers(0, 1000),
)
CHANGES = st.builds(
    Change,
    st.lists(MESSAGES, max_size=4),
    st.integers(0, 9),
    st.integers(0, 9),
    st.none() | TEXTS,
    st.booleans(),
)


class TestWhatWasWrittenIsRead:
    @given(KEYS, ADDRESSES, st.binary(max_size=60), st.lists(st.tuples(NAMES, NAMES), max_size=2), st.booleans())
    def test_of_a_request(
        self,
        key: SessionKey,
        address: ReplyAddress,
        payload: bytes,
        traced: list[tuple[str, str]],
        repeats: bool,  # noqa: FBT001 - drawn
    ) -> None:
        body = Body(key, address, payload, traced, repeats)
        assert read_body(write_body(body)) == body

    @given(ADDRESSES, st.binary(max_size=60), st.none() | CODES, st.none() | st.integers(0, 9))
    def test_of_a_terminal_reply(self, address: ReplyAddress, payload: bytes, status: Any, after: int | None) -> None:
        reply = Outgoing(
            address.topic, payload, json=address.json, status=status, retry_after_ms=after, address=address
        )
        assert read_terminal(write_terminal(reply)) == reply

    @given(NAMES, ANSWERS | FAILURES, NAMES, st.integers(0, 9), st.integers(0, 9))
    def test_of_an_outcome(self, session: str, outcome: Answered | Failure, request: str, run: int, seq: int) -> None:
        """But for a lone surrogate in the text, which no reply could have said either."""
        if isinstance(outcome, Answered):
            outcome = outcome._replace(text=outcome.text.encode(errors="replace").decode())
        ended = Ended(Finished(session, outcome), request, run, seq)
        assert read_ended(write_ended(ended)) == ended

    @given(CHANGES)
    def test_of_a_change(self, change: Change) -> None:
        assert read_change(write_change(change)) == change

    @given(CHANGES)
    def test_of_a_conversation(self, change: Change) -> None:
        after = Conversation().after(change)
        turn = write_turn(change, after)
        read = read_conversation(turn.header, turn.messages)
        # Python counts a text as larger whose UTF-8 it has made once.
        assert read._replace(bytes=0) == after._replace(bytes=0)


def newer(raw: bytes) -> bytes:
    """The same as a newer worker may write it, which says more."""
    head, separator, rest = raw.partition(b"\n")
    return json.dumps({**json.loads(head), "fromLaterOn": [1]}).encode() + separator + rest


class TestOfANewerWorker:
    """Words that this one does not know are passed over."""

    ADDRESS = ReplyAddress("t", "r", "s", correlation_data=b"\xff")

    def test_a_request(self) -> None:
        body = Body(SessionKey("p", "s"), self.ADDRESS, b'{"message":"hello","fromLaterOn":1}', [])
        read = read_body(newer(write_body(body)))
        assert read == body
        assert read.request() == Request(message="hello")

    def test_a_reply_and_an_outcome(self) -> None:
        reply = Outgoing("t", b"fine", status="ok", address=self.ADDRESS)
        assert read_terminal(newer(write_terminal(reply))) == reply
        for outcome in (Answered("fine"), Failure("engine_error")):
            ended = Ended(Finished("s", outcome), "r", 1, 2)
            assert read_ended(newer(write_ended(ended))) == ended

    def test_a_change_and_a_history(self) -> None:
        change = Change([remembered({"role": "user", "content": "hello", "fromLaterOn": 1}, 3)], system_prompt="")
        assert read_change(newer(write_change(change))) == change
        turn = write_turn(change, Conversation().after(change))
        assert read_conversation(newer(turn.header), turn.messages) == Conversation().after(change)

    def test_of_an_older_one_what_is_missing_has_a_default(self) -> None:
        assert read_ended(b'{"session":"s"}\nfine').finished == Finished("s", Answered("fine"))
        assert read_ended(b'{"session":"s","code":"engine_error"}\n').finished.outcome == Failure("engine_error")

    @pytest.mark.parametrize(
        "said", [{"finish_reason": "content_filter"}, {"usage": [1.5, 2]}, {"usage": [2**63, 2]}, {"model": 7}]
    )
    def test_an_outcome_that_no_reply_can_tell_is_not_read(self, said: dict[str, Any]) -> None:
        with pytest.raises(UnreadableError):
            read_ended(json.dumps({"session": "s", **said}).encode() + b"\nfine")


HEADS = st.sampled_from(
    ["key", "topic", "request", "session", "json", "correlation", "traced", "code", "usage", "timings", "messages"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(HEADS | NAMES, inner, max_size=4),
    max_leaves=12,
)
READERS: list[Callable[[bytes], object]] = [
    read_body,
    lambda raw: read_body(raw).request(),
    read_terminal,
    read_ended,
    read_change,
    lambda raw: read_conversation(raw, []),
    lambda raw: read_conversation(b"{}", [raw]),
]


class TestWhatIsNone:
    """Whoever reads it hears so in one way."""

    @pytest.mark.parametrize("read", READERS)
    @settings(max_examples=40)
    @given(
        st.binary(max_size=60)
        | st.builds(
            lambda head, rest: json.dumps(head).encode() + rest,
            ANYTHING | st.dictionaries(HEADS, ANYTHING, max_size=11),
            st.just(b"") | st.binary(max_size=9).map(lambda rest: b"\n" + rest),
        )
    )
    def test_cannot_be_read(self, read: Callable[[bytes], object], raw: bytes) -> None:
        with contextlib.suppress(UnreadableError):
            read(raw)
