"""Answers in Anthropic's shape: as its SDK types them, and as its SDK puts a stream of them together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import anthropic
import httpx2
import pytest
from anthropic.types import Message, MessageParam, RawMessageStreamEvent, ToolResultBlockParam
from pydantic import TypeAdapter

from inferbus_client.contract.wire import FAILURES, Delta, FinishReason, Usage
from inferbus_client.contract.wire.messages import ToolCall
from inferbus_client.contract.wire.replies import CallDelta, CalledDelta
from inferbus_client.exchange.answer import Answer
from inferbus_client.shapes.anthropic_answer import PING, Event, Events, error, message, server_sent
from inferbus_client.shapes.anthropic_request import asked_for

EVENTS: Final[TypeAdapter[Any]] = TypeAdapter(RawMessageStreamEvent)
USAGE: Final = Usage(prompt_tokens=3, completion_tokens=5)


def call(call_id: str, arguments: str) -> ToolCall:
    return ToolCall.model_validate(
        {"id": call_id, "type": "function", "function": {"name": "add", "arguments": arguments}}
    )


def answer(text: str = "Hello.", finish_reason: FinishReason = "stop", **more: Any) -> Answer:
    return Answer(text, "s", "r1", finish_reason, USAGE, **more)


CALLING: Final = answer(
    "Let me add.",
    "tool_calls",
    reasoning="They want a sum.",
    tool_calls=(call("a", '{"x": [1, 2]}'), call("b", ""), call("c", '{"x": [1,')),
)
#: What each answer is in a stream: reasoning and text as they came.
STREAMED: Final = [
    (answer(), [("", "Hel"), ("", "lo.")]),
    (answer(""), []),
    (answer("", "length", reasoning="Well"), [("Well", "")]),
    (answer(finish_reason="length"), [("", "Hello.")]),
    (answer("", "tool_calls", tool_calls=(call("a", "{}"),)), []),
    (CALLING, [("They want ", ""), ("a sum.", "Let "), ("", "me add.")]),
]


def deltas(pieces: Iterable[tuple[str, str]]) -> Iterator[Delta]:
    for seq, (reasoning, text) in enumerate(pieces, 1):
        yield Delta(request_id="r1", session_id="s", seq=seq, text=text, reasoning=reasoning or None)


def events(given: Answer, pieces: Iterable[tuple[str, str]]) -> list[Event]:
    stream = Events("r1", "general")
    parts = [*stream.begin(), PING]
    for delta in deltas(pieces):
        parts += stream.delta(delta)
    return [*parts, *stream.end(given)]


def sdk(status: int, body: bytes, kind: str) -> anthropic.Anthropic:
    """A client that gets this from wherever it asks."""
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(status, content=body, headers={"content-type": kind, "request-id": "r1"})
    )
    return anthropic.Anthropic(api_key="key", max_retries=0, http_client=httpx2.Client(transport=transport))


def streamed(parts: Iterable[Event]) -> Message:
    client = sdk(200, server_sent(parts), "text/event-stream")
    with client.messages.stream(model="general", max_tokens=5, messages=[]) as stream:
        return stream.get_final_message()


def test_an_answer_is_a_message() -> None:
    assert message(answer(), "general/phi") == {
        "id": "msg_r1",
        "type": "message",
        "role": "assistant",
        "model": "general/phi",
        "content": [{"type": "text", "text": "Hello."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 5},
    }


def test_thoughts_words_and_calls_are_blocks_in_this_order() -> None:
    assert message(CALLING, "general")["content"] == [
        {"type": "thinking", "thinking": "They want a sum.", "signature": ""},
        {"type": "text", "text": "Let me add."},
        {"type": "tool_use", "id": "a", "name": "add", "input": {"x": [1, 2]}},
        {"type": "tool_use", "id": "b", "name": "add", "input": {}},
        {"type": "tool_use", "id": "c", "name": "add", "input": {"INVALID_JSON": '{"x": [1,'}},
    ]


@pytest.mark.parametrize("arguments", ["[1]", "add", "3", '{"x": 1e400}', '{"x": NaN}'])
def test_arguments_that_are_no_object_are_told_in_one(arguments: str) -> None:
    (block,) = message(answer("", "tool_calls", tool_calls=(call("a", arguments),)), "m")["content"]
    assert block["input"] == {"INVALID_JSON": arguments}


@pytest.mark.parametrize(("given", "pieces"), STREAMED)
def test_a_stream_is_the_same_message_for_the_sdk(given: Answer, pieces: list[tuple[str, str]]) -> None:
    whole = message(given, "general")
    assert Message.model_validate(whole, strict=True).to_dict() == whole
    together = streamed(events(given, pieces)).to_dict()
    assert {name: together[name] for name in whole} == whole


@pytest.mark.parametrize(("given", "pieces"), STREAMED)
def test_events_have_the_sdk_s_types_and_the_order_of_their_blocks(
    given: Answer, pieces: list[tuple[str, str]]
) -> None:
    parts = events(given, pieces)
    assert all(name == data["type"] for name, data in parts)
    kinds = [EVENTS.validate_python(data).type for name, data in parts if name != "ping"]
    assert [kinds[0], *kinds[-2:]] == ["message_start", "message_delta", "message_stop"]
    blocks = [(data["type"].removeprefix("content_block_"), data["index"]) for _, data in parts if "index" in data]
    number = -1
    for step, index in blocks:
        number += step == "start"
        assert index == number
    for index in range(number + 1):
        steps = [step for step, one in blocks if one == index]
        assert steps == ["start", *["delta"] * (len(steps) - 2), "stop"]


def test_calls_are_said_whole_at_the_end() -> None:
    stream = Events("r1", "general")
    told = CallDelta(index=0, id="a", type="function", function=CalledDelta(name="add", arguments='{"x'))
    assert list(stream.delta(Delta(request_id="r1", session_id="s", seq=1, text="", tool_calls=[told]))) == []
    said = list(stream.end(CALLING))
    pieces = [data["delta"]["partial_json"] for _, data in said if data["type"] == "content_block_delta"]
    assert [json.loads(piece) for piece in pieces] == [{"x": [1, 2]}, {}, {"INVALID_JSON": '{"x": [1,'}]


def test_an_answer_may_come_back_in_the_conversation_as_the_sdk_sends_it() -> None:
    asked: list[bytes] = []

    def refuse(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.read())
        return httpx2.Response(400)

    transport = httpx2.MockTransport(refuse)
    client = anthropic.Anthropic(api_key="key", max_retries=0, http_client=httpx2.Client(transport=transport))
    answered = streamed(events(CALLING, [("They want a sum.", "Let me add.")]))
    results: list[ToolResultBlockParam] = [
        {"type": "tool_result", "tool_use_id": name, "content": "3"} for name in ("a", "b", "c")
    ]
    turns: list[MessageParam] = [{"role": "user", "content": "Add."}, answered.to_param()]
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model="m", max_tokens=5, messages=[*turns, {"role": "user", "content": results}])
    (_, assistant, *told), _ = asked_for(json.loads(asked[0]))
    assert assistant["content"] == "Let me add."
    assert [(one["id"], one["function"]["arguments"]) for one in assistant["tool_calls"]] == [
        ("a", '{"x":[1,2]}'),
        ("b", "{}"),
        ("c", '{"INVALID_JSON":"{\\"x\\": [1,"}'),
    ]
    assert [message["tool_call_id"] for message in told] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("status", "kind", "exception"),
    [
        (400, "invalid_request_error", anthropic.BadRequestError),
        (401, "authentication_error", anthropic.AuthenticationError),
        (403, "permission_error", anthropic.PermissionDeniedError),
        (404, "not_found_error", anthropic.NotFoundError),
        (405, "invalid_request_error", anthropic.APIStatusError),
        (409, "conflict_error", anthropic.ConflictError),
        (413, "request_too_large", anthropic.APIStatusError),
        (429, "rate_limit_error", anthropic.RateLimitError),
        (499, "invalid_request_error", anthropic.APIStatusError),
        (500, "api_error", anthropic.InternalServerError),
        (503, "overloaded_error", anthropic.InternalServerError),
        (504, "timeout_error", anthropic.InternalServerError),
    ],
)
def test_a_failure_is_an_error_of_the_sdk_s(status: int, kind: str, exception: type[anthropic.APIStatusError]) -> None:
    body = error("No.", status, "r1")
    assert body == {"type": "error", "error": {"type": kind, "message": "No."}, "request_id": "r1"}
    client = sdk(status, json.dumps(body).encode(), "application/json")
    with pytest.raises(exception) as raised:
        client.messages.create(model="general", max_tokens=5, messages=[])
    assert raised.value.type == kind
    assert raised.value.status_code == status
    assert raised.value.request_id == "r1"


def test_every_failure_of_the_contract_has_one() -> None:
    kinds = {code: error("", failure.status)["error"]["type"] for code, failure in FAILURES.items()}
    assert kinds == {
        "invalid_request": "invalid_request_error",
        "context_too_long": "invalid_request_error",
        "session_busy": "conflict_error",
        "message_too_large": "request_too_large",
        "rate_limited": "rate_limit_error",
        "cancelled": "invalid_request_error",
        "engine_error": "api_error",
        "overloaded": "overloaded_error",
        "engine_unavailable": "overloaded_error",
        "shutting_down": "overloaded_error",
        "deadline_exceeded": "timeout_error",
    }


def test_a_stream_that_fails_in_the_middle_raises_what_has_happened() -> None:
    stream = Events("r1", "general")
    (delta,) = deltas([("", "Hel")])
    parts = [*stream.begin(), *stream.delta(delta), ("error", error("Gone.", 503, "r1"))]
    with pytest.raises(anthropic.APIStatusError, match="Gone") as raised:
        streamed(parts)
    assert raised.value.type == "overloaded_error"
