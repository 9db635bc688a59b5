"""OpenAI's request bodies: what becomes of each key, and what is refused by its name."""

from __future__ import annotations

from typing import Any

import pytest

from inferbus_client.cli.batch.lines import Line
from inferbus_client.errors import InvalidRequestError
from inferbus_client.exchange.call import Messages
from inferbus_client.exchange.options import AskOptions
from inferbus_client.shapes.openai_request import asked_for, spelled
from support.batch_files import request


def asked(fields: dict[str, Any]) -> tuple[Messages, AskOptions]:
    return asked_for(Line(1, "a", b"", fields).body)


def test_every_key_that_we_know_travels_by_our_name() -> None:
    shape = {"type": "json_object"}
    body: dict[str, Any] = {"model": "phi", "temperature": 0, "top_p": 0.5, "max_tokens": 7, "seed": 1, "stop": ["."]}
    messages, options = asked(request("a", "hello", **body, response_format=shape, top_k=3))
    assert messages == [{"role": "user", "content": "hello"}]
    assert options == {
        "model": "phi",
        "temperature": 0,
        "top_p": 0.5,
        "max_tokens": 7,
        "params": {"seed": 1, "stop": ["."], "response_format": shape, "top_k": 3},
    }


def test_the_newer_name_of_the_length_is_the_same() -> None:
    assert asked(request("a", max_completion_tokens=7))[1] == {"max_tokens": 7}


def test_what_is_null_says_what_happens_anyway_or_is_a_label_is_nothing() -> None:
    body: dict[str, Any] = {"n": 1, "stream": False, "logprobs": False, "top_p": None, "tools": None, "store": False}
    assert asked(request("a", **body, user="me", metadata={"a": "b"}, modalities=["text"]))[1] == {}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"n": 2}, "n: is not supported, but for 1."),
        ({"n": True}, "n: is not supported"),
        ({"stream": True}, "stream: is not supported, but for False."),
        ({"logprobs": True}, "logprobs: "),
        ({"top_logprobs": 3}, "top_logprobs: "),
        ({"modalities": ["text", "audio"]}, "modalities: "),
        ({"audio": {"voice": "alloy"}}, "audio: is not supported."),
        ({"tools": {}}, "tools: must be a list of objects."),
        ({"tools": ["add"]}, "tools: must be a list of objects."),
        ({"functions": []}, "functions: is not supported."),
        ({"warmth": 1}, "warmth: is not supported."),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_completion_tokens and max_tokens exclude each other."),
        ({"messages": "hello"}, "messages: must be a list."),
        ({"messages": None}, "messages: must be a list."),
    ],
)
def test_what_we_cannot_do_is_refused_by_its_name(body: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        asked(request("a", **body))
    assert refused.value.failure.detail.startswith(words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"method": "GET"}, "method: must be POST."),
        ({"url": "/v1/embeddings"}, "url: must be /v1/chat/completions."),
        ({"body": []}, "body: must be an object."),
        ({"priority": 1}, "priority: is not known."),
    ],
)
def test_so_is_what_stands_around_the_body(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        asked({**request("a"), **fields})
    assert refused.value.failure.detail == words


def test_a_fault_has_openai_s_name_not_the_wire_s() -> None:
    assert spelled("maxTokens: must be at least 1.") == "max_tokens: must be at least 1."
    assert spelled("topP: must be more than 0.") == "top_p: must be more than 0."
    assert spelled("toolChoice: needs tools.") == "tool_choice: needs tools."
    assert spelled("params.seed: must be a whole number.") == "seed: must be a whole number."
    assert spelled("messages.0.role: must be one.") == "messages.0.role: must be one."


def test_an_answer_may_come_back_as_a_part_of_the_conversation() -> None:
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": "hi",
        "refusal": None,
        "audio": None,
        "annotations": [],
        "tool_calls": [],
    }
    messages = [{"role": "developer", "content": "be kind"}, {**answer, "reasoning_content": "hmm"}]
    assert asked_for({"messages": messages})[0] == [
        {"role": "system", "content": "be kind"},
        {"role": "assistant", "content": "hi"},
    ]


def test_what_is_no_message_is_left_to_the_wire() -> None:
    assert asked_for({"messages": ["hello", 1]})[0] == ["hello", 1]


def test_an_image_that_had_to_be_fetched_is_refused_in_words() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    with pytest.raises(InvalidRequestError) as refused:
        asked_for({"messages": [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, part]}]})
    assert refused.value.failure.detail.startswith("messages.0.content.1.image_url.url: must be a data URI")
