"""Whether what has come is what had to come. Each judge raises `MismatchError` with the first thing that is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from inferbus_client.conformance.case import Expect, Names, Replies
from inferbus_client.contract.presence import Presence, Stats, decode_announcement
from inferbus_client.contract.wire import Accepted, Delta, Done, ErrorReply, InvalidReplyError, decode_reply
from inferbus_client.errors import InferbusError
from inferbus_client.mqtt.message import Incoming
from inferbus_client.shown import shown_in_line

_SHOWN: Final = 300


class MismatchError(InferbusError):
    """Something else came than had to."""


def judge_message(message: Incoming, expect: Expect, names: Names, *, has_properties: bool) -> None:
    """Whether a message is the one that had to come."""
    if expect.says is not None:
        payload, is_presence = message.payload, expect.says == "presence"
        said = decode_announcement(Presence, payload) if is_presence else decode_announcement(Stats, payload)
        if said is None:
            raise MismatchError(f"this is no {expect.says}: {shown(message.payload)}")
    if expect.text is not None and names.pattern(expect.text).fullmatch(_text_of(message)) is None:
        raise MismatchError(f"the text had to match {names.text(expect.text)!r}, and is {shown(message.payload)}")
    if not has_properties:
        return
    properties = dict(message.user_properties)
    for name, value in names.value(expect.properties).items():
        if properties.get(name) != value:
            raise MismatchError(f"the user property {name} had to be {value!r}, and is {properties.get(name)!r}")
    if expect.correlation is not None and message.correlation_data != names.text(expect.correlation).encode():
        raise MismatchError(f"the correlation data do not come back; {message.correlation_data!r} came")


def judge_replies(payloads: Sequence[bytes], expect: Replies, names: Names) -> None:
    """Whether these are the JSON replies that had to come.

    Of all of them: each is a reply of this version; they name the same request and session; `seq` counts 0, 1, 2 …;
    the last one alone ends the request; what was streamed, calls too, is what the answer says. In a group of workers
    that is so of the request's last run, and the one that says `accepted` may be slower than the one that answers.
    """
    replies = _of_the_last_run([_reply(payload) for payload in payloads])
    types = " ".join(reply.type for reply in replies)
    if names.pattern(expect.types).fullmatch(types) is None:
        raise MismatchError(f"the replies had to be {expect.types!r}, and are {types!r}: {shown(payloads[-1])}")
    if len({(reply.request_id, reply.session_id) for reply in replies}) > 1:
        raise MismatchError("the replies name more than one request or session")
    if expect.request is not None and replies[0].request_id != names.text(expect.request):
        raise MismatchError(f"the replies name the request {replies[0].request_id!r}")
    if [reply.seq for reply in replies] != list(range(len(replies))):
        raise MismatchError(f"seq counts {', '.join(str(reply.seq) for reply in replies)}")
    streamed = "".join(reply.text for reply in replies if isinstance(reply, Delta))
    last = replies[-1]
    if streamed and isinstance(last, Done) and streamed != last.text:
        raise MismatchError(f"what was streamed is not the answer: {shown(streamed.encode())}, {shown(payloads[-1])}")
    if isinstance(last, Done):
        _check_calls([reply for reply in replies if isinstance(reply, Delta)], last)
    _has(json.loads(payloads[-1]), names.value(expect.last), "")


def is_last(payload: bytes) -> bool:
    """Whether a JSON reply ends its request."""
    return _reply(payload).terminal


def shown(payload: bytes) -> str:
    """A payload for a line of a report."""
    text = shown_in_line(payload[: 4 * _SHOWN].decode(errors="replace"))
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _reply(payload: bytes) -> Accepted | Delta | Done | ErrorReply:
    try:
        return decode_reply(payload)
    except InvalidReplyError as error:
        raise MismatchError(f"{error}: {shown(payload)}") from None


def _of_the_last_run(
    replies: Sequence[Accepted | Delta | Done | ErrorReply],
) -> list[Accepted | Delta | Done | ErrorReply]:
    run = max(reply.run for reply in replies)
    return sorted(
        (reply for reply in replies if reply.run == run),
        # Nothing else may come late.
        key=lambda reply: not (isinstance(reply, Accepted) and reply.worker is not None),
    )


def _text_of(message: Incoming) -> str:
    try:
        return message.payload.decode()
    except UnicodeDecodeError:
        raise MismatchError(f"the payload is not UTF-8: {message.payload[:_SHOWN]!r}") from None


def _check_calls(deltas: Sequence[Delta], done: Done) -> None:
    """Whether the calls that were streamed are those of the answer, and it says why it ended."""
    called = done.tool_calls or []
    if (done.finish_reason == "tool_calls") != bool(called):
        raise MismatchError(f"the answer has {len(called)} calls, and its finishReason is {done.finish_reason!r}")
    grown: dict[int, list[str | None]] = {}
    for part in (part for delta in deltas for part in delta.tool_calls or ()):
        call = grown.setdefault(part.index, [part.id, part.function.name, ""])
        call[2] = f"{call[2]}{part.function.arguments}"
    whole = [[call.id, call.function.name, call.function.arguments] for call in called]
    if grown and called and [grown[number] for number in sorted(grown)] != whole:
        raise MismatchError(
            f"what was streamed are not the answer's calls: {shown(json.dumps(list(grown.items())).encode())}"
        )


def _has(value: Any, expected: Any, where: str) -> None:
    """Whether a value has, at least, what is expected of it."""
    if isinstance(expected, Mapping):
        for key, one in expected.items():
            if not isinstance(value, Mapping) or key not in value:
                raise MismatchError(f"{where}{key} is missing")
            _has(value[key], one, f"{where}{key}.")
    elif isinstance(expected, str) and expected.startswith("~"):
        if not isinstance(value, str) or Names({}).pattern(expected[1:]).fullmatch(value) is None:
            raise MismatchError(f"{where[:-1]} had to match {expected[1:]!r}, and is {value!r}")
    elif isinstance(expected, list) and isinstance(value, list) and len(value) == len(expected):
        for number, one in enumerate(expected):
            _has(value[number], one, f"{where}{number}.")
    elif value != expected:
        raise MismatchError(f"{where[:-1]} had to be {expected!r}, and is {value!r}")
