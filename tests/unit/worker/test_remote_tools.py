"""Tools through the three shapes of chat completions: what servers are told, and what they say that their models call.

Each of the eight backends is a stub that speaks as it does; hostile ones say whatever they like.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Final

import pytest

from inferbus_worker.chat import CallDelta, Message, ToolUse
from inferbus_worker.engines.base import ChatCall, Completion, EngineError, InvalidCallError
from inferbus_worker.engines.remote.backends import BACKENDS as ROWS
from inferbus_worker.engines.remote.engine import RemoteEngine, RemotePlace
from inferbus_worker.engines.remote.loop import RemoteLoop
from inferbus_worker.replies.calls import joined
from inferbus_worker.settings.models import BACKENDS, Backend
from support.stub_backend import Fault, StubBackend
from support.stub_calls import Called
from support.tool_calls import ADD, OTHER, TOOLS, asked, called

#: Ollama's own endpoint is what takes a slot's options.
OWN_ENDPOINT: Final = {"options": {"num_ctx": 4096}}
ONE: Final = (Called("add", '{"a": 1}'),)
TWO: Final = (*ONE, Called("add", '{"a": 2}'))
NAMED: Final[dict[str, Any]] = {"type": "function", "function": {"name": "add"}}

Serve = Callable[..., tuple[RemoteEngine, StubBackend]]

#: Every backend, and Ollama's two endpoints.
each_way = pytest.mark.parametrize(
    ("backend", "options"), [*((backend, {}) for backend in BACKENDS), ("ollama", OWN_ENDPOINT)]
)


@pytest.fixture
def serve(loop: RemoteLoop) -> Iterator[Serve]:
    """A started engine before a stub."""
    with ExitStack() as running:

        def start(backend: Backend, options: Mapping[str, Any] | None = None) -> tuple[RemoteEngine, StubBackend]:
            server = running.enter_context(StubBackend(backend))
            engine = RemoteEngine(RemotePlace(backend, url=server.url, **(options or {})), loop)
            running.callback(engine.stop, 10)
            engine.start()
            return engine, server

        yield start


def whole(engine: RemoteEngine, call: ChatCall) -> Completion:
    return engine.generate(call).wait(time.monotonic() + 30)


def functions(answer: Completion) -> list[tuple[str, Any]]:
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in answer.tool_calls]


def told(serve: Serve, backend: Backend, call: ChatCall, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The body that a backend gets."""
    engine, stub = serve(backend, options)
    whole(engine, call)
    body: dict[str, Any] = stub.requests[0].body
    return body


class TestAnswers:
    @each_way
    @pytest.mark.parametrize("calls", [ONE, TWO])
    def test_what_a_model_calls_comes_whole_and_in_deltas_that_join(
        self, serve: Serve, backend: Backend, options: Mapping[str, Any], calls: tuple[Called, ...]
    ) -> None:
        engine, stub = serve(backend, options)
        stub.calls = calls
        said: list[CallDelta] = []
        generation = engine.generate(asked(tools=ToolUse(TOOLS)), lambda _, __, calls=(): said.extend(calls))
        answer = generation.wait(time.monotonic() + 30)
        assert functions(answer) == [(call.name, json.loads(call.arguments)) for call in calls]
        assert (answer.text, answer.finish_reason) == ("add one", "tool_calls")
        assert [{**delta, "index": None} for delta in joined(said)] == [
            {"index": None, **call} for call in answer.tool_calls
        ]
        assert len({call["id"] for call in answer.tool_calls}) == len(calls)

    @each_way
    def test_where_only_one_may_be_called_one_is(
        self, serve: Serve, backend: Backend, options: Mapping[str, Any]
    ) -> None:
        engine, stub = serve(backend, options)
        stub.calls = TWO
        answer = whole(engine, asked(tools=ToolUse(TOOLS, parallel=False)))
        assert functions(answer) == [("add", {"a": 1})]

    @pytest.mark.parametrize(
        ("backend", "options"), [("openai", {}), ("anthropic", {}), ("ollama", {}), ("ollama", OWN_ENDPOINT)]
    )
    @pytest.mark.parametrize("tools", [None, ToolUse(TOOLS, "none")])
    def test_a_call_that_nobody_wants_fails_the_answer(
        self, serve: Serve, backend: Backend, options: Mapping[str, Any], tools: ToolUse | None
    ) -> None:
        engine, stub = serve(backend, options)
        stub.calls = ONE
        with pytest.raises(EngineError, match="nobody has offered"):
            whole(engine, asked(tools=tools))


class TestRequests:
    @pytest.mark.parametrize("backend", [backend for backend in BACKENDS if backend != "anthropic"])
    def test_tools_go_as_they_come(self, serve: Serve, backend: Backend) -> None:
        body = told(serve, backend, asked(tools=ToolUse(TOOLS, parallel=False)))
        assert (body["tools"], body["tool_choice"], body["parallel_tool_calls"]) == (TOOLS, "auto", False)

    def test_to_anthropic_they_go_in_its_own_words(self, serve: Serve) -> None:
        body = told(serve, "anthropic", asked(tools=ToolUse(TOOLS, parallel=False)))
        assert body["tools"] == [
            {"name": "add", "description": "Add.", "input_schema": ADD["function"]["parameters"]},
            {"name": "other", "input_schema": {"type": "object"}},
        ]
        assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [("none", {"type": "none"}), ("required", {"type": "any"}), (NAMED, {"type": "tool", "name": "add"})],
    )
    def test_anthropic_is_told_a_choice(self, serve: Serve, choice: Any, expected: dict[str, str]) -> None:
        assert told(serve, "anthropic", asked(tools=ToolUse(TOOLS, choice)))["tool_choice"] == expected

    @pytest.mark.parametrize("backend", [backend for backend in BACKENDS if ROWS[backend].tools == "auto"])
    @pytest.mark.parametrize("choice", ["required", NAMED])
    def test_where_the_model_alone_decides_nothing_is_forced(self, serve: Serve, backend: Backend, choice: Any) -> None:
        with pytest.raises(InvalidCallError, match="toolChoice"):
            told(serve, backend, asked(tools=ToolUse(TOOLS, choice)))

    @pytest.mark.parametrize("backend", [backend for backend in BACKENDS if ROWS[backend].tools == "auto"])
    @pytest.mark.parametrize("options", [{}, OWN_ENDPOINT])
    def test_where_the_model_alone_decides_it_sees_no_tools_that_it_may_not_call(
        self, serve: Serve, backend: Backend, options: Mapping[str, Any]
    ) -> None:
        assert "tools" not in told(serve, backend, asked(tools=ToolUse(TOOLS, "none")), options)

    @pytest.mark.parametrize("backend", [each for each in BACKENDS if ROWS[each].tools == "required"])
    def test_where_none_can_be_named_the_one_is_offered_alone(self, serve: Serve, backend: Backend) -> None:
        body = told(serve, backend, asked(tools=ToolUse([OTHER, ADD], NAMED)))
        assert (body["tools"], body["tool_choice"]) == ([ADD], "required")

    @pytest.mark.parametrize("backend", ["vllm", "tgi", "openai"])
    def test_others_are_told_its_name(self, serve: Serve, backend: Backend) -> None:
        body = told(serve, backend, asked(tools=ToolUse(TOOLS, NAMED)))
        assert (body["tools"], body["tool_choice"]) == (TOOLS, NAMED)


def after_calls(*calls: Mapping[str, Any], result: str = "it is 2") -> list[Message]:
    """A conversation in which calls were made and answered."""
    results = [{"role": "tool", "tool_call_id": call["id"], "content": result} for call in calls]
    return [
        {"role": "user", "content": "what is it"},
        {"role": "assistant", "content": "", "tool_calls": list(calls)},
        *results,
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "thanks"},
    ]


class TestHistories:
    def test_anthropic_hears_them_in_blocks(self, serve: Serve) -> None:
        messages = after_calls(called("add", '{"a": 1}', "a"), called("add", '{"a": 2}', "b"))
        body = told(serve, "anthropic", asked(messages=messages, tools=ToolUse(TOOLS)))
        _, calls, results, _, _ = body["messages"]
        assert calls["content"] == [
            {"type": "tool_use", "id": name, "name": "add", "input": {"a": number}}
            for name, number in (("a", 1), ("b", 2))
        ]
        said = [{"type": "text", "text": "it is 2"}]
        assert results == {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": name, "content": said} for name in "ab"],
        }

    def test_ollama_hears_of_which_tool_a_result_is(self, serve: Serve) -> None:
        messages = after_calls(called("add", '{"a": 1}'))
        body = told(serve, "ollama", asked(messages=messages, tools=ToolUse(TOOLS)), OWN_ENDPOINT)
        _, calls, result, _, _ = body["messages"]
        assert calls["tool_calls"] == [{"function": {"name": "add", "arguments": {"a": 1}}}]
        assert result == {"role": "tool", "content": "it is 2", "tool_name": "add"}

    def test_openai_hears_them_as_they_are(self, serve: Serve) -> None:
        messages = after_calls(called("add", '{"a":  1}'))
        assert told(serve, "openai", asked(messages=messages))["messages"] == messages

    @pytest.mark.parametrize(
        ("backend", "options"), [("llama.cpp", {}), ("anthropic", {}), ("ollama", {}), ("ollama", OWN_ENDPOINT)]
    )
    def test_a_call_that_was_no_json_does_not_end_its_conversation(
        self, serve: Serve, backend: Backend, options: Mapping[str, Any]
    ) -> None:
        """Nor does it look like a failure of the server, which others would be kept from."""
        broken = ["", "no", '{"a": 1', "[1]", "7", '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', "[" * 5000]
        calls = [called("add", each, f"call_{number}") for number, each in enumerate(broken)]
        said = told(serve, backend, asked(messages=after_calls(*calls)), options)["messages"][1]
        if backend == "anthropic":
            kept = [block["input"] for block in said["content"]]
        else:
            kept = [call["function"]["arguments"] for call in said["tool_calls"]]
        assert all(each in ({}, "{}") for each in kept)
        assert len(kept) == len(broken)

    @pytest.mark.parametrize("call_id", ["functions.add:0", "a b", "💥", "x" * 200])
    def test_ids_that_another_server_gave_are_made_fit_for_anthropic(self, serve: Serve, call_id: str) -> None:
        body = told(serve, "anthropic", asked(messages=after_calls(called("a.b", "{}", call_id))))
        _, calls, results, _, _ = body["messages"]
        (call,) = calls["content"]
        assert set(call["id"] + call["name"]) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
        assert results["content"][0]["tool_use_id"] == call["id"]

    @pytest.mark.parametrize("tools", [None, ToolUse([OTHER], "auto")])
    def test_anthropic_is_told_of_every_tool_that_was_called(self, serve: Serve, tools: ToolUse | None) -> None:
        """It takes no conversation with calls where no tools are told: a session with one would be over."""
        messages = after_calls(called("add", "{}", "a"), called("add", "{}", "b"))
        body = told(serve, "anthropic", asked(messages=messages, tools=tools))
        if tools is None:
            assert body["tools"] == [{"name": "add", "input_schema": {"type": "object"}}]
            assert body["tool_choice"] == {"type": "none"}
        else:
            assert body["tools"] == [{"name": "other", "input_schema": {"type": "object"}}]


def openai_event(*calls: Any, finish: str | None = None, **delta: Any) -> str:
    choice = {"index": 0, "delta": {**delta, "tool_calls": list(calls)}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


def hostile(serve: Serve, raw: str, tools: ToolUse | None = None, **call: Any) -> Completion:
    engine, stub = serve("openai")  # which is not asked, after a failure, whether it has stopped
    stub.always = Fault(raw=raw)
    return whole(engine, asked(tools=tools or ToolUse(TOOLS), **call))


class TestStrangers:
    def test_a_flood_of_arguments_is_an_answer_of_more_than_was_asked_for(self, serve: Serve) -> None:
        """Also of a call that is left out."""
        flood = [{"index": 0, "function": {"name": "add"}}, {"index": 1, "function": {"name": "add"}}]
        events = openai_event(*flood) + openai_event({"index": 1, "function": {"arguments": "x" * 2000}}) * 10
        for parallel in (None, False):
            with pytest.raises(EngineError, match="at greater length"):
                hostile(serve, events, ToolUse(TOOLS, parallel=parallel), max_tokens=8)

    @pytest.mark.parametrize(
        "calls",
        [
            [None, 7, "add", [], {}],
            [{"index": "0", "id": 7, "function": {"name": ["add"], "arguments": 7}}],
            [{"index": -1, "function": None}],
            [{"function": {"name": "add", "arguments": "[" * 5000}}],
            [{"index": number, "function": {"name": "add"}} for number in range(129)],
        ],
    )
    def test_what_is_no_call_fails_the_answer(self, serve: Serve, calls: list[Any]) -> None:
        with pytest.raises(EngineError):
            hostile(serve, openai_event(*calls, finish="tool_calls"))

    def test_calls_after_the_end_come_too_late(self, serve: Serve) -> None:
        late = openai_event({"index": 1, "id": "b", "function": {"name": "other", "arguments": "{}"}})
        one = openai_event({"index": 0, "id": "a", "function": {"name": "add", "arguments": "{}"}}, finish="stop")
        assert functions(hostile(serve, one + late)) == [("add", {})]

    def test_indexes_without_order_and_ids_that_come_twice_are_put_right(self, serve: Serve) -> None:
        calls = [{"index": number, "id": "a", "function": {"name": "add", "arguments": "{}"}} for number in (9, 2)]
        answer = hostile(serve, openai_event(*calls, finish="tool_calls"))
        assert len({call["id"] for call in answer.tool_calls}) == 2

    def test_arguments_may_be_the_object_that_they_are(self, serve: Serve) -> None:
        call = {"index": 0, "id": "a", "function": {"name": "add", "arguments": {"a": 1}}}
        assert functions(hostile(serve, openai_event(call, finish="tool_calls"))) == [("add", {"a": 1})]

    def test_half_a_call_calls_nothing(self, serve: Serve) -> None:
        half = openai_event({"index": 0, "id": "a", "function": {"name": "add", "arguments": '{"a'}}, finish="length")
        answer = hostile(serve, half)
        assert (answer.finish_reason, answer.tool_calls) == ("length", ())

    def test_a_stream_that_is_cut_within_a_call_has_failed(self, serve: Serve) -> None:
        with pytest.raises(EngineError):
            hostile(serve, openai_event({"index": 0, "id": "a", "function": {"name": "add", "arguments": '{"a'}}))
