"""Whole conversations in requests: what OpenAI's shapes allow comes through as it is, and all else is one failure."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from inferbus_client.contract.wire import (
    Control,
    InvalidPayloadError,
    Params,
    Request,
    decode_fields,
    decode_request,
    messages,
    requests,
)
from inferbus_client.contract.wire.closed import Closed
from inferbus_client.contract.wire.messages import MAX_ARGUMENTS, MAX_MESSAGES, MAX_TOOL_CALLS, MAX_VALUES
from support.steps import steps_of

PIXEL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
ASKED = {"role": "user", "content": "hello"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Graz"}'}}
EVERYTHING: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is it like?"}, PIXEL]},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
    {"role": "assistant", "content": "It rains."},
    {"role": "user", "content": "And now?"},
]

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
PARTS = st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS})
WORDS = TEXTS | st.lists(PARTS, min_size=1, max_size=3)
CALLS = st.fixed_dictionaries(
    {
        "id": st.just("c"),
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": st.just("f"), "arguments": TEXTS}),
    }
)
MESSAGES = st.one_of(
    st.fixed_dictionaries({"role": st.just("system"), "content": WORDS}),
    st.fixed_dictionaries({"role": st.just("user"), "content": st.just("x") | st.just([PIXEL]) | st.just("\n?")}),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": WORDS}, optional={"tool_calls": st.lists(CALLS, min_size=1)}
    ),
    st.fixed_dictionaries({"role": st.just("assistant"), "tool_calls": st.lists(CALLS, min_size=1)}),
    st.fixed_dictionaries({"role": st.just("tool"), "tool_call_id": st.just("c"), "content": WORDS}),
)
KEYS = st.sampled_from(["role", "content", "tool_calls", "tool_call_id", "name", "type", "text", "function", "id"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS | st.sampled_from(["user", "assistant", "tool", "text"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=30,
)


def called(**changes: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{**CALL, **changes}]}


def strange(count: int) -> dict[str, int]:
    """So many keys that nobody knows."""
    return {f"k{number}": 0 for number in range(count)}


#: Payloads of up to a megabyte in which next to nothing is right.
TOO_MUCH: dict[str, dict[str, Any]] = {
    "keys of a message": {"messages": [{**ASKED, **strange(90_000)}]},
    "keys of a message, as many as are looked at": {"messages": [{**ASKED, **strange(19_000)}]},
    "keys of each message": {"messages": [{**ASKED, **strange(17)} for _ in range(1000)]},
    "parts": {"messages": [{"role": "user", "content": [{}] * 300_000}]},
    "messages": {"messages": [[]] * 300_000},
    "a long message before": {"messages": [{"role": "user", "content": "x" * 1_000_000}, {"role": "user"}]},
    "lists in messages": {"messages": [{**ASKED, "more": [[[[]]]]} for _ in range(25_000)]},
    "tool calls": {"messages": [called(**strange(140)) for _ in range(128)]},
    "tool calls of one": {"messages": [{"role": "assistant", "tool_calls": [{**CALL, **strange(140)}] * 128}]},
    "keys of a function": {"messages": [called(function=strange(19_000))]},
    "keys of a part": {"message": [{"type": "text", "text": "x", **strange(90_000)}]},
    "keys of each part": {"message": [{"type": "text", "text": "x", **strange(1400)}] * 64},
    "keys of an image": {"message": [{"type": "image_url", "image_url": strange(90_000)}]},
    "parts of a message": {"message": [{}] * 300_000},
    "params": {"message": "x", "params": strange(90_000)},
    "params, as many as are looked at": {"message": "x", "params": strange(19_000)},
    "stops": {"message": "x", "params": {"stop": [1] * 19_000}},
    "a form": {"message": "x", "params": {"response_format": {"type": "json_object", **strange(19_000)}}},
    "ids": {"message": "x", "sessionId": [0] * 300_000, "requestId": strange(90_000), "clientId": []},
}


def decoded(messages: Any, **fields: Any) -> Request:
    request = decode_request(json.dumps({"messages": messages, **fields}).encode())
    assert isinstance(request, Request)
    return request


def detail(messages: Any, **fields: Any) -> str:
    with pytest.raises(InvalidPayloadError) as caught:
        decoded(messages, **fields)
    assert caught.value.failure.code == "invalid_request"
    return caught.value.failure.detail


class TestAConversation:
    def test_comes_through_as_it_is(self) -> None:
        request = decoded(EVERYTHING)
        assert [one.as_openai() for one in request.messages or ()] == EVERYTHING
        assert request.is_stateless
        assert request.brings_system_prompt

    def test_says_what_its_messages_say(self) -> None:
        request = decoded(EVERYTHING)
        words = ["Be brief.", "What is it like?", "", "weather", '{"city": "Graz"}', "rain", "It rains.", "And now?"]
        assert request.text.split("\n") == words
        assert (request.image_count, request.said[-1]["content"]) == (1, "And now?")

    def test_a_message_brings_none(self) -> None:
        request = decode_request(b"hello")
        assert isinstance(request, Request)
        assert not request.is_stateless
        assert not request.brings_system_prompt

    def test_null_is_nothing(self) -> None:
        assert decoded(None, message="hello").message == "hello"
        assert decoded([ASKED], message=None).is_stateless

    def test_beside_a_reset_is_a_request(self) -> None:
        assert decoded([ASKED], reset=True).is_stateless
        assert isinstance(decode_request(b'{"reset": true}'), Control)

    def test_that_answers_nothing_with_nothing_is_carried(self) -> None:
        said = [{"role": "system", "content": ""}, ASKED, {"role": "assistant", "content": ""}, ASKED]
        assert [one.as_openai() for one in decoded(said).messages or ()] == said

    def test_arguments_may_be_what_a_model_wrote(self) -> None:
        said = called(function={"name": "f", "arguments": '{"half": '})
        assert [one.as_openai() for one in decoded([said]).messages or ()] == [said]

    @given(st.lists(MESSAGES, min_size=1, max_size=6))
    def test_survives_the_way_there_and_back(self, messages: list[dict[str, Any]]) -> None:
        sent = Request.model_validate({"messages": messages, "sessionId": "s1"})
        assert decode_request(sent.encode()) == sent
        assert [one.as_openai() for one in sent.messages or ()] == messages


class TestIsRefused:
    @pytest.mark.parametrize(
        ("messages", "words"),
        [
            ([], "messages: must not be empty."),
            ("hello", "messages: must be a list."),
            ({"role": "user"}, "messages: must be a list."),
            (["hello"], "messages.0: must be an object."),
            ([{}], "messages.0: must have 'role'."),
            (
                [{"role": "developer", "content": "x"}],
                "messages.0: 'role' must be one of 'system', 'user', 'assistant', 'tool'.",
            ),
            ([{"role": "user"}], "messages.0.user.content: Field required."),
            ([{"role": "user", "content": ""}], "messages.0.user.content: must not be empty."),
            ([{"role": "user", "content": " \n"}], "messages.0.user: the message is blank."),
            ([{"role": "user", "content": 5}], "messages.0.user.content: must be text."),
            ([{"role": "system", "content": 5}], "messages.0.system.content: must be text."),
            ([ASKED, {**ASKED, "name": "ann"}], "messages.1.user.name: is not known."),
            (
                [{"role": "user", "content": [{"type": "audio"}]}],
                "messages.0.user.content.0: 'type' must be one of 'text', 'image_url'.",
            ),
            ([{"role": "assistant"}], "messages.0.assistant: must have content or tool_calls."),
            ([{"role": "assistant", "tool_calls": []}], "messages.0.assistant.tool_calls: must not be empty."),
            ([{"role": "tool", "content": "x"}], "messages.0.tool.tool_call_id: Field required."),
            ([{"role": "system", "content": [PIXEL]}], "messages.0.system.content.0.type: must be 'text'."),
            ([called(type="custom")], "messages.0.assistant.tool_calls.0.type: must be 'function'."),
            ([called(id="")], "messages.0.assistant.tool_calls.0.id: must not be empty."),
            ([called(index=0)], "messages.0.assistant.tool_calls.0.index: is not known."),
            (
                [called(function={"name": "f\nERROR", "arguments": "{}"})],
                "messages.0.assistant.tool_calls.0.function.name: must match ^[A-Za-z0-9_.:/-]{1,128}$.",
            ),
            (
                [called(function={"name": "f", "arguments": {}})],
                "messages.0.assistant.tool_calls.0.function.arguments: must be text.",
            ),
            (
                [called(function={"name": "f", "arguments": "[" * 5000})],
                "messages.0.assistant.tool_calls.0.function.arguments: nest too deep.",
            ),
            (
                [called(function={"name": "f", "arguments": "x" * (MAX_ARGUMENTS + 1)})],
                "messages.0.assistant.tool_calls.0.function.arguments: must have at most 65536 characters.",
            ),
            (
                [{"role": "assistant", "tool_calls": [CALL] * (MAX_TOOL_CALLS + 1)}],
                "messages.0.assistant.tool_calls: must have at most 128 elements.",
            ),
            ([ASKED] * (MAX_MESSAGES + 1), "messages: must have at most 1000 elements."),
            (
                [{"role": "user", "content": [{"type": "text", "text": "x"}] * 60}] * 200,
                f"messages: must hold at most {MAX_VALUES} values.",
            ),
        ],
    )
    def test_what_is_no_conversation(self, messages: Any, words: str) -> None:
        assert detail(messages) == words

    def test_beside_a_message(self) -> None:
        assert detail([ASKED], message="hello") == "messages: excludes message."

    def test_with_two_system_prompts(self) -> None:
        assert detail(EVERYTHING, systemPrompt="Be long.") == "systemPrompt: excludes a system message."
        assert decoded([ASKED], systemPrompt="Be long.").system_prompt == "Be long."

    def test_neither(self) -> None:
        with pytest.raises(InvalidPayloadError) as caught:
            decode_request(b'{"sessionId": "s1"}')
        assert caught.value.failure.detail == "message: Field required."

    def test_and_still_says_whom_to_answer(self) -> None:
        with pytest.raises(InvalidPayloadError) as caught:
            decoded([], sessionId="s1", requestId="r1", reply="json")
        envelope = caught.value.envelope
        assert (envelope.session_id, envelope.request_id, envelope.wants_json) == ("s1", "r1", True)

    @given(ANYTHING)
    def test_by_one_typed_failure_whatever_it_is(self, messages: object) -> None:
        with suppress(InvalidPayloadError):
            assert decoded(messages).encode()
            return
        assert detail(messages).isprintable()

    @pytest.mark.parametrize("fields", TOO_MUCH.values(), ids=TOO_MUCH.keys())
    def test_at_a_price_that_does_not_grow_with_what_is_wrong(self, fields: dict[str, Any]) -> None:
        """In the network thread. It is counted: lines of ours, and what pydantic has found wrong."""
        refusals: list[InvalidPayloadError] = []

        def refuse() -> None:
            try:
                decode_fields(fields)
            except InvalidPayloadError as refusal:
                refusals.append(refusal)

        assert steps_of(refuse) < 20 * MAX_VALUES
        [refusal] = refusals
        found = refusal.__context__
        assert isinstance(found, ValidationError)
        assert found.error_count() < 20


def test_every_object_that_refuses_what_it_does_not_know_does_so_at_that_price() -> None:
    shapes = [*vars(messages).values(), *vars(requests).values()]
    models = [shape for shape in shapes if isinstance(shape, type) and issubclass(shape, BaseModel)]
    strict = {model for model in models if model.model_config.get("extra") == "forbid"}
    assert {Params, messages.UserMessage, messages.ToolCall} < strict
    assert all(issubclass(model, Closed) for model in strict)
