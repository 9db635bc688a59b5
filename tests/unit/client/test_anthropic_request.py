"""Anthropic's request bodies: what becomes of each key, and what is refused by its name."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from inferbus_client.contract.wire.messages import MAX_ARGUMENTS, MAX_MESSAGES, MAX_PARTS, MAX_TOOL_CALLS
from inferbus_client.errors import InvalidRequestError
from inferbus_client.exchange.call import Addresses, Call
from inferbus_client.shapes.anthropic_request import asked_for, spelled

IMAGE: Final = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
TOOL: Final = {"name": "add", "description": "Adds.", "input_schema": {"type": "object", "properties": {}}}
HINT: Final = {"type": "ephemeral"}
#: All of what can be asked.
WHOLE: Final[dict[str, Any]] = {
    "model": "general",
    "max_tokens": 7,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": HINT}, {"type": "text", "text": "Be kind."}],
    "messages": [
        {"role": "user", "content": "hello"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "They greet me.", "signature": "abc"},
                {"type": "redacted_thinking", "data": "abc"},
                {"type": "text", "text": "Let me add.", "citations": None},
                {"type": "tool_use", "id": "a", "name": "add", "input": {"x": [1, 2]}, "caller": {"type": "direct"}},
                {"type": "tool_use", "id": "b", "name": "add", "input": {}},
            ],
        },
        {"role": "system", "content": "Be quick."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "And this?"},
                {**IMAGE, "cache_control": HINT},
                {"type": "tool_result", "tool_use_id": "a", "content": "3"},
                {
                    "type": "tool_result",
                    "tool_use_id": "b",
                    "content": [{"type": "text", "text": "too few"}, {"type": "text", "text": "numbers"}],
                    "is_error": True,
                },
            ],
        },
    ],
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "stop_sequences": ["."],
    "tools": [{**TOOL, "type": "custom", "cache_control": HINT, "strict": True}],
    "tool_choice": {"type": "tool", "name": "add", "disable_parallel_tool_use": True},
    "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
    "thinking": {"type": "disabled"},
    "service_tier": "auto",
    "metadata": {"user_id": "me"},
    "cache_control": HINT,
}


def body(*blocks: Any, **keys: Any) -> dict[str, Any]:
    """A request whose user says these blocks."""
    return {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": list(blocks) or "hello"}], **keys}


def refused(asked: Any) -> str:
    with pytest.raises(InvalidRequestError) as error:
        asked_for(asked)
    return error.value.failure.detail


def sent(asked: Any) -> Call:
    """What a client makes of it: the wire's own checks are passed."""
    messages, options = asked_for(asked)
    travelling: dict[str, Any] = {**options}
    return Addresses("general", "gateway").request(None, "s", stream=False, messages=messages, **travelling)


def test_every_key_that_we_know_travels_by_our_name() -> None:
    TypeAdapter(MessageCreateParamsNonStreaming).validate_python(WHOLE)
    messages, options = asked_for(WHOLE)
    assert options == {
        "model": "general",
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "params": {
            "top_k": 5,
            "stop": ["."],
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
        },
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "add",
                    "description": "Adds.",
                    "parameters": {"type": "object", "properties": {}},
                    "strict": True,
                },
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "parallel_tool_calls": False,
    }
    assert [message["role"] for message in messages] == [
        *("system", "user", "assistant", "system", "tool", "tool", "user")
    ]
    sent(WHOLE)


def test_what_the_system_says_comes_first() -> None:
    assert asked_for(body(system="Be brief."))[0][0] == {"role": "system", "content": "Be brief."}
    parts = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
    assert asked_for(WHOLE)[0][0] == {"role": "system", "content": parts}
    empty: tuple[Any, ...] = ("", [], None)
    for system in empty:
        assert [message["role"] for message in asked_for(body(system=system))[0]] == ["user"]


def test_calls_and_their_results_are_messages_in_the_order_that_models_know() -> None:
    _, _, assistant, _, first, second, user = asked_for(WHOLE)[0]
    assert assistant == {
        "role": "assistant",
        "content": "Let me add.",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"x":[1,2]}'}},
            {"id": "b", "type": "function", "function": {"name": "add", "arguments": "{}"}},
        ],
    }
    assert first == {"role": "tool", "tool_call_id": "a", "content": "3"}
    told = [{"type": "text", "text": "Error: too few"}, {"type": "text", "text": "numbers"}]
    assert second == {"role": "tool", "tool_call_id": "b", "content": told}
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert user == {"role": "user", "content": [{"type": "text", "text": "And this?"}, url]}


def test_a_result_without_words_is_one() -> None:
    result = {"type": "tool_result", "tool_use_id": "a"}
    assert asked_for(body(result))[0] == [{"role": "tool", "tool_call_id": "a", "content": ""}]
    assert asked_for(body({**result, "is_error": True}))[0][0]["content"] == "Error"


def test_an_answer_without_words_keeps_its_place() -> None:
    for content in ("", [], [{"type": "text", "text": ""}], [{"type": "thinking", "thinking": "Hm.", "signature": ""}]):
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": content}]
        asked = body(messages=[*turns, {"role": "user", "content": "b"}])
        assert asked_for(asked)[0][1] == {"role": "assistant", "content": ""}
        sent(asked)


@pytest.mark.parametrize(
    ("choice", "options"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "auto", "disable_parallel_tool_use": False}, {"tool_choice": "auto", "parallel_tool_calls": True}),
    ],
)
def test_a_choice_of_tools_has_our_words(choice: dict[str, Any], options: dict[str, Any]) -> None:
    asked = body(tools=[TOOL], tool_choice=choice)
    assert {name: value for name, value in asked_for(asked)[1].items() if "tool_" in name} == options
    sent(asked)


def test_what_changes_no_answer_or_offers_nothing_is_nothing() -> None:
    nothing: dict[str, Any] = {
        "metadata": {"user_id": "me"},
        "service_tier": "standard_only",
        "cache_control": HINT,
        "tools": [],
    }
    assert asked_for(body(**nothing, top_k=None, thinking=None, container=None))[1] == {"model": "m", "max_tokens": 5}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([], "body: must be an object."),
        ({"model": "m", "messages": []}, "max_tokens: Field required."),
        (body(max_tokens="5"), "max_tokens: must be a whole number."),
        (body(temperature=1.5), "temperature: must be at most 1."),
        (body(temperature=True), "temperature: must be a number."),
        (body(temperature=float("nan")), "temperature: must be a finite number."),
        (body(stream=True), "stream: is not supported."),
        (body(mcp_servers=[]), "mcp_servers: is not supported."),
        (body(container="x"), "container: is not supported."),
        (body(output_config={"effort": "high"}), "output_config.effort: is not supported."),
        (body(service_tier="priority"), "service_tier: must be 'auto' or 'standard_only'."),
        (body(thinking={"type": "enabled", "budget_tokens": 1024}), "thinking: type enabled is not supported."),
        (body(thinking={"type": "adaptive"}), "thinking: type adaptive is not supported."),
        (body(tools={}), "tools: must be a list."),
        (body(tools=["add"]), "tools.0: must be an object."),
        (
            body(tools=[TOOL, {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]),
            "tools.1: type web_search_20250305 is not supported.",
        ),
        (body(tools=[{**TOOL, "defer_loading": True}]), "tools.0.defer_loading: must be False."),
        (body(tools=[{**TOOL, "eager_input_streaming": True}]), "tools.0.eager_input_streaming: must be False."),
        (body(tools=[{**TOOL, "input_examples": []}]), "tools.0.input_examples: is not supported."),
        (body(tool_choice={"type": "all"}), "tool_choice: type all is not supported."),
        (body(tool_choice={"type": "tool"}), "tool_choice: must have a name"),
        (body(messages="hello"), "messages: must be a list."),
        (body(messages=[]), "messages: must not be empty."),
        (body(messages=["hello"]), "messages.0: must be an object."),
        (body(messages=[{"role": "tool", "content": "3"}]), "messages.0: role tool is not supported."),
        (body(messages=[{"role": "user", "content": 3}]), "messages.0.content: must be a list."),
        (body(messages=[{"role": "user", "content": " "}]), "messages.0.content: must not be blank."),
        (body(messages=[{"role": "user", "content": []}]), "messages.0.content: must not be blank."),
        (body(messages=[{"role": "user", "content": "a", "name": "me"}]), "messages.0.name: is not supported."),
        (body({"type": "document", "source": {}}), "messages.0.content.0: type document is not supported."),
        (body({"type": "text", "text": 3}), "messages.0.content.0.text: must be text."),
        (
            body({"type": "text", "text": "a"}, {"type": "image", "source": {"type": "url", "url": "https://x"}}),
            "messages.0.content.1.source: type url is not supported.",
        ),
        (
            body({"type": "tool_result", "tool_use_id": "a", "content": [IMAGE]}),
            "messages.0.content.0.content.0: type image is not supported.",
        ),
        (
            body({"type": "text", "text": "a", "citations": [{}]}),
            "messages.0.content.0.citations: is not supported.",
        ),
    ],
)
def test_what_we_cannot_do_is_refused_by_its_name(asked: Any, words: str) -> None:
    assert refused(asked).startswith(words)


def called(**keys: Any) -> dict[str, Any]:
    block = {"type": "tool_use", "id": "a", "name": "add", "input": {}, **keys}
    last = {"role": "user", "content": "go on"}
    return body(messages=[last, {"role": "assistant", "content": [{"type": "text", "text": ""}, block]}, last])


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(levels):
        inner = {"a": inner}
    return inner


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (called(input=[]), "messages.1.content.1.input: must be an object."),
        (called(input={"a": "b" * MAX_ARGUMENTS}), "messages.1.content.1.input: must have at most 65536 characters."),
        (called(input=nested(250)), "messages.1.content.1.input: nests too deep"),
        (called(input={"a": "\ud800"}), "messages.1.content.1.input: nests too deep, or cannot be written as JSON."),
        (called(input={"a": float("inf")}), "messages.1.content.1.input: nests too deep, or cannot be written"),
        (called(name="a b"), "messages.1.content.1.name: must match"),
        (called(id=""), "messages.1.content.1.id: must not be empty."),
        (called(caller={"type": "code_execution_20250825"}), "messages.1.content.1.caller: type code_execution_202508"),
    ],
)
def test_a_call_in_the_conversation_is_one_that_the_wire_takes(asked: Any, words: str) -> None:
    assert refused(asked).startswith(words)


def test_an_answer_cannot_be_begun_for_the_model() -> None:
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "The answer is ("}]
    assert refused(body(messages=turns)).startswith("messages: the last one must not be the assistant's: prefill")


def test_what_is_too_much_is_refused_where_it_stands() -> None:
    text, result = {"type": "text", "text": "a"}, {"type": "tool_result", "tool_use_id": "a"}
    assert refused(body(*[text] * (MAX_PARTS + 1))).startswith("messages.0.content: must have at most 64 blocks")
    many = body(*[result] * (MAX_TOOL_CALLS + MAX_PARTS + 1))
    assert refused(many) == "messages.0.content: must have at most 192 elements."
    sent(body(*[result] * MAX_TOOL_CALLS, *[text] * MAX_PARTS))
    calls = called()["messages"][1]["content"][1:] * (MAX_TOOL_CALLS + 1)
    turns = [{"role": "assistant", "content": calls}, {"role": "user", "content": "a"}]
    assert refused(body(messages=turns)) == "messages.0.content: must have at most 128 calls of tools."
    assert refused(body(messages=turns[1:] * (MAX_MESSAGES + 1))) == "messages: must have at most 1000 elements."
    assert refused(body({"type": "text", "text": [[]] * 20_001})) == "messages: must hold at most 20000 values."


def test_a_complaint_is_short_and_can_be_shown() -> None:
    detail = refused(body({"type": "\x1b[2J" + "a" * 10_000}))
    assert "\x1b" not in detail
    assert len(detail) < 200
    detail = refused({**body(), "\x1b[2J\n" + "a" * 10_000: 1})
    assert detail.isprintable()
    assert len(detail) <= 300


@pytest.fixture(scope="module")
def many() -> dict[str, None]:
    return dict.fromkeys(map(str, range(10**6)))


@pytest.mark.parametrize(
    "asked",
    [
        lambda many: {**body(), **many},
        lambda many: body(metadata=many),
        lambda many: body(cache_control=many),
        lambda many: body(output_config={"format": {"type": "json_schema", "schema": many}}),
        lambda many: body(tools=[{**TOOL, "cache_control": many}]),
        lambda many: body(thinking={"type": [many]}),
        lambda many: body({"type": "text" * len(many)}),
        lambda many: body(stop_sequences=[3] * len(many)),
    ],
    ids=["keys", "label", "hint", "schema", "tool", "type", "tag", "list"],
)
def test_what_is_large_is_not_looked_through(asked: Callable[[Any], Any], many: dict[str, None]) -> None:
    large = asked(many)
    began = time.process_time()
    with suppress(InvalidRequestError):
        asked_for(large)
    assert time.process_time() - began < 0.2


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (body(max_tokens=0), "max_tokens: must be at least 1."),
        (body(top_p=0), "top_p: must be more than 0."),
        (body(top_k=2_000_000), "top_k: must be at most 1000000."),
        (body(stop_sequences=["a"] * 17), "stop_sequences: must have at most 16 elements."),
        (body(model="a b"), "model: must match"),
        (body(tool_choice={"type": "any"}), "tool_choice: needs tools."),
        (body(tools=[TOOL], tool_choice={"type": "tool", "name": "sub"}), "tool_choice: names none of the tools."),
        (body(tools=[{**TOOL, "name": "a b"}]), "tools.0.name: must match"),
        (body(tools=[TOOL, TOOL]), "tools: has a name twice."),
        (body(tools=[{**TOOL, "description": "a" * 5000}]), "tools.0.description: must have at most 4096"),
        (body(tools=[{"name": "a", "input_schema": {"type": "array"}}]), "tools.0.input_schema: must be a schema of"),
        (
            body(output_config={"format": {"type": "json_schema", "schema": {"pattern": "(" * 600}}}),
            "output_config.format: ",
        ),
    ],
)
def test_what_the_wire_refuses_has_anthropic_s_name(asked: Any, words: str) -> None:
    with pytest.raises(InvalidRequestError) as error:
        sent(asked)
    assert spelled(error.value.failure.detail).startswith(words)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every object or list of a value, with every key and number in it."""
    for key, inner in [*value.items()] if isinstance(value, dict) else [*enumerate(value)]:
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


WORDS: Final = st.sampled_from(["text", "tool_use", "tool_result", "image", "user", "assistant", "system", "add", ""])
ANYTHING: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "content", "role", "input", "name", "source", "a"]), inner)
    ),
    max_leaves=8,
)


@given(number=st.integers(min_value=0, max_value=10**6), value=ANYTHING)
def test_whatever_stands_anywhere_is_taken_by_the_wire_or_refused(number: int, value: Any) -> None:
    asked = copy.deepcopy(WHOLE)
    every = list(places(asked))
    inside, key = every[number % len(every)]
    inside[key] = value
    with suppress(InvalidRequestError):
        asked_for(asked)
        complaint = ""
        try:
            sent(asked)
        except InvalidRequestError as error:
            complaint = error.failure.detail
        assert not complaint.startswith("messages.")


@given(ANYTHING)
def test_whatever_is_sent_is_refused_and_no_more(value: Any) -> None:
    refused(value)
    for name in WHOLE:
        refused({name: value})
