"""What lies in the store, as bytes: requests, terminal replies, outcomes, and the messages of histories.

Another worker reads it, perhaps a newer or an older one: unknown keys are ignored, and what is missing has a default. A
text or a payload that may be long stands behind the rest as it is, since to escape it would cost more than all else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from inferbus_client.contract.wire import Failure, InvalidPayloadError, Request, decode_fields, decode_object
from inferbus_worker.outcome import Answered
from inferbus_worker.replies.address import ReplyAddress
from inferbus_worker.replies.outgoing import Outgoing
from inferbus_worker.state.conversation import Change, Conversation, Remembered
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.protocols import Finished
from inferbus_worker.state.redis.holdings import Turn

P = ParamSpec("P")
T = TypeVar("T")

_ANSWERED: Final = TypeAdapter(Answered)


class UnreadableError(Exception):
    """What lies in the store is not what a worker has written there, or a newer one has."""


def _reads(read: Callable[P, T]) -> Callable[P, T]:
    """Whatever is wrong with what lies there, its readers hear it in one way."""

    @wraps(read)
    def reads(*args: P.args, **more: P.kwargs) -> T:
        try:
            return read(*args, **more)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, InvalidPayloadError) as error:
            # The words of others may quote it.
            raise UnreadableError(f"what lies in the store cannot be read ({type(error).__name__})") from None

    return reads


class Body(NamedTuple):
    """All that a worker needs to run a request which another one has admitted.

    Attributes:
        key: its session.
        address: where its replies go.
        payload: as its requester has written it; it has passed every check.
        traced: what its requester has said of its trace.
        may_repeat: whether a repeat of it can be told: else nobody need remember its outcome.
    """

    key: SessionKey
    address: ReplyAddress
    payload: bytes
    traced: Sequence[tuple[str, str]] = ()
    may_repeat: bool = True

    @_reads
    def request(self) -> Request:
        """The request.

        Raises:
            UnreadableError: a newer worker has taken for one what this one does not.
        """
        request = decode_fields(decode_object(self.payload))
        if not isinstance(request, Request):
            raise TypeError("what lies in the store is no request")
        return request


class Ended(NamedTuple):
    """How a request ended, and how that was said.

    Attributes:
        finished: the outcome.
        request_id: what it went by, where it named no id itself too.
        run: see `ReplyAddress`.
        seq: the number of the terminal reply.
    """

    finished: Finished
    request_id: str | None
    run: int
    seq: int


def write_body(body: Body) -> bytes:
    more = {"traced": list(body.traced), "repeats": body.may_repeat}
    return _joined({"key": list(body.key), **_address(body.address), **more}, body.payload)


@_reads
def read_body(raw: bytes) -> Body:
    """What `write_body` has written.

    Raises:
        UnreadableError: it was not.
    """
    head, payload = _parted(raw)
    traced = [(str(name), str(value)) for name, value in head.get("traced", ())]
    return Body(SessionKey(*head["key"]), _read_address(head), payload, traced, head.get("repeats", True))


def write_terminal(reply: Outgoing) -> bytes:
    """A terminal reply, so that whoever takes it over publishes the very same."""
    assert reply.address is not None  # noqa: S101 - a reply has one
    head = {**_address(reply.address), "status": reply.status, "retryAfterMs": reply.retry_after_ms}
    return _joined(head, reply.payload)


@_reads
def read_terminal(raw: bytes) -> Outgoing:
    """What `write_terminal` has written; see `read_body`."""
    head, payload = _parted(raw)
    address = _read_address(head)
    return Outgoing(
        address.topic,
        payload,
        json=address.json,
        status=head.get("status"),
        retry_after_ms=head.get("retryAfterMs"),
        address=address,
    )


def write_ended(ended: Ended) -> bytes:
    """The outcome of a request, for its repeats."""
    outcome = ended.finished.outcome
    head = {"session": ended.finished.session, "request": ended.request_id, "run": ended.run, "seq": ended.seq}
    if isinstance(outcome, Failure):
        return _joined({**head, "code": outcome.code, "detail": outcome.detail, "after": outcome.retry_after_ms}, b"")
    said = outcome._asdict()
    text = said.pop("text").encode(errors="replace")
    return _joined({**head, **said}, text)


@_reads
def read_ended(raw: bytes) -> Ended:
    """What `write_ended` has written; see `read_body`."""
    head, text = _parted(raw)
    finished = Finished(head["session"], _outcome(head, text))
    return Ended(finished, head.get("request"), head.get("run", 0), head.get("seq", 0))


def _outcome(head: dict[str, Any], text: bytes) -> Answered | Failure:
    if "code" in head:
        return Failure(head["code"], head.get("detail", ""), head.get("after"))
    # A newer worker may say what our contract does not know, and whoever says it again checks nothing.
    return _ANSWERED.validate_python(
        {"text": text.decode(), **{name: head[name] for name in Answered._fields if name in head}}
    )


def write_change(change: Change) -> bytes:
    """What a turn does to a conversation."""
    cut = {"forgotten": change.forgotten, "dropped": change.dropped, "resets": change.resets}
    return _in_json({**cut, "system": change.system_prompt, "messages": [list(one) for one in change.messages]})


@_reads
def read_change(raw: bytes) -> Change:
    """What `write_change` has written; see `read_body`."""
    read = _of_json(raw)
    messages = [Remembered(*one) for one in read["messages"]]
    return Change(messages, read["forgotten"], read["dropped"], read["system"], read["resets"])


def write_turn(change: Change, after: Conversation) -> Turn:
    """What a turn does to a history, and what the conversation is with it."""
    messages = [_in_json(list(one)) for one in change.messages]
    return Turn(_in_json({"system": after.system_prompt}), change.forgotten, change.dropped, change.resets, messages)


@_reads
def read_conversation(head: bytes, messages: Iterable[bytes]) -> Conversation:
    """A conversation of the header and the messages that `write_turn` has written; see `read_body`."""
    change = Change([Remembered(*_of_json(one)) for one in messages], system_prompt=_of_json(head).get("system"))
    return Conversation().after(change)


def _address(address: ReplyAddress) -> dict[str, Any]:
    correlation = address.correlation_data
    return {
        "topic": address.topic,
        "request": address.request_id,
        "session": address.session_id,
        "json": address.json,
        "correlation": None if correlation is None else correlation.decode("latin-1"),
    }


def _read_address(head: dict[str, Any]) -> ReplyAddress:
    correlation = head.get("correlation")
    return ReplyAddress(
        topic=head["topic"],
        request_id=head["request"],
        session_id=head["session"],
        json=head["json"],
        correlation_data=None if correlation is None else correlation.encode("latin-1"),
    )


def _joined(head: dict[str, Any], payload: bytes) -> bytes:
    return _in_json(head) + b"\n" + payload


def _in_json(value: object) -> bytes:
    try:
        return to_json(value)
    except ValueError:  # a lone surrogate, which a model can say, is no UTF-8; Python's own module has a word for one
        return json.dumps(value, separators=(",", ":")).encode()


def _of_json(raw: bytes) -> Any:
    try:
        return from_json(raw)
    except ValueError:
        return json.loads(raw)


def _parted(raw: bytes) -> tuple[dict[str, Any], bytes]:
    head, separator, payload = raw.partition(b"\n")
    if not separator:
        raise ValueError("there is no head")
    read = _of_json(head)
    if not isinstance(read, dict):
        raise TypeError("it is no head")
    return read, payload
