"""What `RemoteEngine` promises, for each of the eight backends, against a stub that speaks as they do."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest
from pydantic import SecretStr

from inferbus_client.contract.trace import TraceContext
from inferbus_worker.chat import Message
from inferbus_worker.engines.base import (
    CancelledGenerationError,
    ChatCall,
    Completion,
    ContextTooLongError,
    EngineDeadError,
    EngineError,
    EngineStartError,
    FirstTokenTimeoutError,
    GenerationTimeoutError,
    InvalidCallError,
    Sampling,
)
from inferbus_worker.engines.remote.backends import BACKENDS as ROWS
from inferbus_worker.engines.remote.engine import RemoteEngine, RemotePlace
from inferbus_worker.engines.remote.loop import RemoteLoop
from inferbus_worker.seldom import Once
from inferbus_worker.settings.models import BACKENDS, Backend
from support.nowhere import mute, nobody
from support.stub_backend import Fault, StubBackend
from support.waiting import until

_PICTURE: Final = "data:image/png;base64,iVBORw0KGgo="
_COUNTING: Final = ("vllm", "llama.cpp", "tabbyapi", "tgi", "anthropic")
_TELLING: Final = ("vllm", "llama.cpp", "tgi")

Serve = Callable[..., tuple[RemoteEngine, StubBackend]]

each_backend = pytest.mark.parametrize("backend", BACKENDS)


def call(
    text: str = "My name is Zorvek",
    *,
    messages: list[Message] | None = None,
    thinking: Any = "hide",
    first_token_within: float | None = None,
    **options: Any,
) -> ChatCall:
    sampling = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 64} | options
    return ChatCall(
        messages or [{"role": "user", "content": text}],
        Sampling(**sampling),
        thinking=thinking,
        first_token_within=first_token_within,
    )


def whole(engine: RemoteEngine, chat: ChatCall) -> Completion:
    return engine.generate(chat).wait(time.monotonic() + 30)


@pytest.fixture
def serve(loop: RemoteLoop) -> Iterator[Serve]:
    """A started engine before a stub: `serve("vllm", context=100, place={"options": {}})`."""
    with ExitStack() as running:

        def start(backend: Backend, *, place: dict[str, Any] | None = None, **stub: Any) -> tuple[Any, Any]:
            server = running.enter_context(StubBackend(backend, **stub))
            key = None if server.key is None else SecretStr(server.key)
            engine = RemoteEngine(RemotePlace(backend, **{"url": server.url, "key": key} | (place or {})), loop)
            running.callback(engine.stop, 10)
            engine.start()
            return engine, server

        yield start


@each_backend
def test_an_answer_is_whole_and_its_deltas_join(serve: Serve, backend: Backend) -> None:
    engine, _ = serve(backend)
    said: list[str] = []
    answer = engine.generate(call(), lambda text, _, *_calls: said.append(text)).wait(time.monotonic() + 30)
    assert answer.text == "My name is Zorvek" == "".join(said)
    assert len(said) >= 4
    assert answer.finish_reason == "stop"
    assert answer.usage == (4, 4)
    until(lambda: engine.running == 0)


@each_backend
def test_every_call_is_streamed_whatever_was_wanted(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    whole(engine, call()._replace(stream=False))
    assert stub.requests[0].body["stream"] is True


@each_backend
def test_where_a_call_stands_in_a_trace_goes_along_in_its_headers(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    context = TraceContext(f"00-{'1' * 32}-{'2' * 16}-01", "a=1,b@c=2")
    for trace in (context, TraceContext(context.traceparent), None):
        engine.generate(call()._replace(trace=trace)).wait(None)
    sent = [
        {name: value for name, value in request.headers.items() if name.startswith("trace")}
        for request in stub.requests
    ]
    assert sent == [context.headers, {"traceparent": context.traceparent}, {}]


@each_backend
def test_many_calls_run_at_once(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    stub.together = 20
    running = [engine.generate(call(f"number {index}")) for index in range(20)]
    assert [each.wait(time.monotonic() + 30).text for each in running] == [f"number {index}" for index in range(20)]
    assert stub.peak == 20


@each_backend
def test_an_answer_that_reaches_its_bound_says_so(serve: Serve, backend: Backend) -> None:
    engine, _ = serve(backend)
    answer = whole(engine, call(max_tokens=2))
    assert (answer.text, answer.finish_reason) == ("My name", "length")


@each_backend
def test_a_cancel_closes_the_connection_and_frees_the_slot(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    stub.per_token = 600.0
    generation = engine.generate(call())
    until(lambda: stub.running == 1)
    generation.cancel()
    with pytest.raises(CancelledGenerationError):
        generation.wait(None)
    until(lambda: stub.running == 0)
    assert stub.closed == 1
    until(lambda: engine.running == 0)
    assert engine.leaked == 0


@each_backend
def test_a_deadline_closes_the_connection(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    stub.per_token = 600.0
    generation = engine.generate(call())
    until(lambda: stub.running)
    with pytest.raises(GenerationTimeoutError):
        generation.wait(time.monotonic() + 0.3)
    until(lambda: stub.closed == 1)


@each_backend
def test_a_first_token_that_does_not_come_in_time_is_said(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    stub.first_token = 600.0
    with pytest.raises(FirstTokenTimeoutError):
        engine.generate(call(first_token_within=2.0)).wait(time.monotonic() + 30)
    until(lambda: stub.closed == 1)


@each_backend
def test_a_slow_answer_that_has_begun_keeps_its_time(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    stub.per_token = 1.1
    chat = call(first_token_within=3.0)
    assert engine.generate(chat).wait(time.monotonic() + 30).text == "My name is Zorvek"


@each_backend
def test_reasoning_is_hidden_unless_asked_for_and_counts_as_a_beginning(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    stub.reasoning, stub.per_token = "let me think about that", 0.8
    told: list[tuple[str, str]] = []
    chat = call("hello", first_token_within=3.0)
    hidden = engine.generate(chat, lambda *grown: told.append(grown)).wait(time.monotonic() + 30)
    assert (hidden.text, hidden.reasoning) == ("hello", "")
    assert told[0] == ("", "")
    stub.per_token = 0.0
    shown = whole(engine, call("hello", thinking="show"))
    assert (shown.text, shown.reasoning) == ("hello", "let me think about that")
    assert shown.usage.completion_tokens == 6


@each_backend
def test_a_model_is_kept_from_thinking_as_its_server_takes_it(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    whole(engine, call())
    whole(engine, call(thinking="off"))
    thinking, silent = (request.body for request in stub.requests)
    added = {name: value for name, value in silent.items() if name not in thinking}
    kwargs = {"enable_thinking": False, "thinking": False}
    expected: dict[str, Any] = {
        "tabbyapi": {"template_vars": kwargs},
        "ollama": {"reasoning_effort": "none"},
        "anthropic": {"thinking": {"type": "disabled"}},
        "tgi": {},
        "openai": {},
    }
    assert added == expected.get(backend, {"chat_template_kwargs": kwargs})


@each_backend
def test_usage_is_estimated_where_the_server_tells_none(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    stub.has_usage = False
    usage = whole(engine, call()).usage
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0


@each_backend
@pytest.mark.parametrize("finish", ["content_filter", "tool_calls"])
def test_an_answer_that_ends_otherwise_is_an_error_in_words(serve: Serve, backend: Backend, finish: str) -> None:
    engine, stub = serve(backend)
    stub.finish = finish
    with pytest.raises(Exception, match=r"filtered|tool"):
        whole(engine, call())


@each_backend
def test_a_form_goes_as_the_server_takes_it(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    chat = call('{"name": "Zorvek"}', extra={"response_format": form})
    if backend == "mlx":
        with pytest.raises(InvalidCallError, match="takes no response_format"):
            whole(engine, chat)
        return
    assert whole(engine, chat).text == '{"name": "Zorvek"}'
    body = stub.requests[0].body
    if backend == "tabbyapi":
        assert body["json_schema"] == schema
    elif backend == "anthropic":
        assert body["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    else:
        assert body["response_format"] == form


@each_backend
def test_images_go_where_they_can(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    parts = [{"type": "text", "text": "what is it"}, {"type": "image_url", "image_url": {"url": _PICTURE}}]
    chat = call(messages=[{"role": "user", "content": parts}])
    if backend == "mlx":
        with pytest.raises(InvalidCallError, match="no images"):
            whole(engine, chat)
        return
    assert whole(engine, chat).text == "what is it"
    sent = stub.requests[0].body["messages"][0]["content"][1]
    if backend == "anthropic":
        assert sent["source"] == {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    else:
        assert sent["image_url"]["url"] == _PICTURE


@each_backend
def test_an_image_is_never_fetched(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}
    with pytest.raises(InvalidCallError):
        whole(engine, call(messages=[{"role": "user", "content": [part]}]))
    assert not stub.requests


@each_backend
def test_the_servers_context_is_told_or_set(serve: Serve, backend: Backend) -> None:
    engine, _ = serve(backend, context=2048)
    assert engine.context_tokens == (ROWS[backend].default_context if backend in {"mlx", "openai"} else 2048)
    engine, _ = serve(backend, context=2048, place={"context": 1000})
    assert engine.context_tokens == 1000


@each_backend
def test_the_servers_own_number_of_slots_stands_beside_the_natural_one(serve: Serve, backend: Backend) -> None:
    engine, _ = serve(backend, slots=7)
    assert engine.capacity == {"vllm": 256, "ollama": 4}.get(backend, 1)
    assert engine.told_capacity == (7 if backend in {"vllm", "llama.cpp", "tabbyapi", "tgi"} else None)


@each_backend
def test_a_prompt_that_is_too_long_is_told_apart(serve: Serve, backend: Backend) -> None:
    engine, _ = serve(backend, context=50)
    with pytest.raises(ContextTooLongError):
        whole(engine, call("word " * 60))


@each_backend
def test_tokens_are_counted_where_the_server_counts_and_estimated_elsewhere(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    text = "one two three four five six seven"
    if backend in _COUNTING:
        assert engine.count_tokens(text) == 7
        assert engine.counts_exactly
        asked = len(stub.probes)
        assert engine.count_tokens(text) == 7
        assert len(stub.probes) == asked
    else:
        assert engine.count_tokens(text) > 4
        assert not engine.counts_exactly
    assert engine.count_tokens("") == 0


def test_a_tokenizer_that_hangs_costs_its_bound_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferbus_worker.engines.remote.tokens._PATIENCE", 0.2)
    engine, stub = serve("vllm")

    asked: list[object] = []

    async def hang(*question: object) -> tuple[int, object]:
        asked.append(question)
        await asyncio.sleep(600)
        return 200, ""

    assert engine._connections is not None
    monkeypatch.setattr(engine._connections, "ask", hang)
    assert all(engine.count_tokens(f"text number {index}") > 0 for index in range(50))
    assert len(asked) == 1
    assert not engine.counts_exactly
    assert stub.requests == []


@each_backend
def test_parameters_go_by_the_servers_names_and_others_are_refused(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    row = ROWS[backend]
    extra: dict[str, Any] = {"stop": ["."], "seed": 7, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1}
    for name, value in extra.items():
        if name not in row.parameters and backend != "ollama":
            with pytest.raises(InvalidCallError, match=f"takes no {name}"):
                whole(engine, call(extra={name: value}))
            continue
        whole(engine, call(extra={name: value}))
        body = stub.requests[-1].body
        sent = body.get("options", {}) | body
        own = {"ollama": {"repetition_penalty": "repeat_penalty"}}.get(backend, {}).get(name, name)
        assert sent[row.parameters.get(name, own)] == value


def test_a_parameter_that_nobody_may_set_is_refused(serve: Serve) -> None:
    engine, stub = serve("vllm")
    with pytest.raises(InvalidCallError, match="Unknown parameter logit_bias"):
        whole(engine, call(extra={"logit_bias": {}}))
    assert not stub.requests


def test_the_cache_salt_goes_to_vllm_alone(serve: Serve) -> None:
    for backend in BACKENDS:
        engine, stub = serve(backend)
        whole(engine, call()._replace(cache_salt="salt"))
        assert ("cache_salt" in stub.requests[0].body) == (backend == "vllm")


def test_ollamas_options_go_through_its_own_endpoint(serve: Serve) -> None:
    engine, stub = serve("ollama", place={"options": {"num_ctx": 8192, "keep_alive": "10m"}})
    stub.reasoning = "hm"
    answer = whole(engine, call(thinking="show", extra={"stop": ["END"]}))
    assert (answer.text, answer.reasoning, answer.usage) == ("My name is Zorvek", "hm", (4, 5))
    request = stub.requests[0]
    assert request.path == "/api/chat"
    assert request.body["keep_alive"] == "10m"
    assert request.body["options"]["num_ctx"] == 8192
    assert request.body["options"]["stop"] == ["END"]
    assert engine.context_tokens == 8192


def test_a_slots_options_go_into_its_requests_and_never_over_what_a_call_says(serve: Serve) -> None:
    engine, stub = serve("llama.cpp", place={"options": {"cache_prompt": True, "temperature": 2, "stream": False}})
    whole(engine, call())
    body = stub.requests[0].body
    assert (body["cache_prompt"], body["temperature"], body["stream"]) == (True, 0.0, True)


def test_a_conversation_with_tools_is_put_into_anthropics_shape(serve: Serve) -> None:
    engine, stub = serve("anthropic")
    tool = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages: list[Message] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": None, "tool_calls": [tool]},
        {"role": "tool", "tool_call_id": "t1", "content": "result"},
        {"role": "user", "content": "three"},
    ]
    stub.answer = "done"
    whole(engine, call(messages=messages))
    body = stub.requests[0].body
    assert body["system"] == "Be brief."
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert [block["text"] for block in body["messages"][0]["content"]] == ["one", "two"]
    assert body["messages"][1]["content"] == [{"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}]
    assert [block["type"] for block in body["messages"][2]["content"]] == ["tool_result", "text"]


@each_backend
@pytest.mark.parametrize("named", [True, False])
def test_an_engine_starts_with_the_model_that_is_named_or_served(serve: Serve, backend: Backend, named: bool) -> None:  # noqa: FBT001
    engine, stub = serve(backend, model="tiny", place={"model": "tiny"} if named else {})
    whole(engine, call())
    expected = "tiny" if named else {"mlx": "default_model", "tgi": "tgi"}.get(backend, "tiny")
    assert stub.requests[0].body["model"] == engine.model == expected


def test_mlx_is_not_asked_for_its_list_which_breaks_off_where_the_hub_has_no_cache(serve: Serve) -> None:
    engine, stub = serve("mlx")
    whole(engine, call())
    assert [probe.path for probe in stub.probes] == ["/health"]


@pytest.mark.parametrize("backend", ["vllm", "ollama", "openai", "anthropic"])
def test_a_model_that_is_not_served_is_refused_with_those_that_are(serve: Serve, backend: Backend) -> None:
    with pytest.raises(EngineStartError, match=r"knows no model other; it serves stub\."):
        serve(backend, place={"model": "other"})


@each_backend
def test_a_start_where_nobody_listens_names_the_address_and_a_remedy(loop: RemoteLoop, backend: Backend) -> None:
    with nobody() as url:
        address = url.replace("mqtt", "http")
        with pytest.raises(EngineStartError, match=rf"Nobody answers at {address}: start .*, or mend url"):
            RemoteEngine(RemotePlace(backend, address), loop).start()


def test_a_start_before_a_mute_server_ends(loop: RemoteLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferbus_worker.engines.remote.probes._PATIENCE", 0.3)
    with mute("http") as url:
        engine = RemoteEngine(RemotePlace("vllm", url), loop)
        with pytest.raises(EngineStartError, match="does not answer"):
            engine.start()
        engine.stop(5)


@pytest.mark.parametrize("backend", ["ollama", "llama.cpp", "tabbyapi", "tgi"])
def test_a_server_of_another_kind_is_told(loop: RemoteLoop, backend: Backend) -> None:
    with StubBackend("openai") as stub:
        engine = RemoteEngine(RemotePlace(backend, stub.url), loop)
        with pytest.raises(EngineStartError, match=r"is not .*; mend backend or url"):
            engine.start()
        engine.stop(5)


@each_backend
def test_an_engine_starts_again_where_it_could_not(loop: RemoteLoop, backend: Backend) -> None:
    with nobody() as url:
        port = int(url.rpartition(":")[2])
    engine = RemoteEngine(RemotePlace(backend, f"http://127.0.0.1:{port}/v1/"), loop)
    with pytest.raises(EngineStartError):
        engine.start()
    stub = StubBackend(backend)
    stub.port = port
    with stub:
        engine.start()
        engine.start()
        assert whole(engine, call()).text == "My name is Zorvek"
        engine.stop(5)


@each_backend
def test_what_runs_at_the_stop_ends_as_the_engines_end(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    stub.per_token = 600.0
    generation = engine.generate(call())
    until(lambda: stub.running == 1)
    engine.stop(5)
    with pytest.raises(EngineDeadError):
        generation.wait(time.monotonic() + 30)
    until(lambda: stub.running == 0)
    engine.stop(5)


@pytest.mark.parametrize("backend", _TELLING)
def test_a_slot_that_stays_busy_after_a_cancel_has_leaked(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    stub.per_token, stub.leaks = 600.0, True
    running = [engine.generate(call(f"number {index}")) for index in range(2)]
    until(lambda: stub.running == 2)
    for generation in running:
        generation.cancel()
    until(lambda: engine.leaked == 2)
    stub.free()
    stub.per_token = 0.0
    assert whole(engine, call()).text == "My name is Zorvek"
    assert engine.leaked == 2


@pytest.mark.parametrize("backend", _TELLING)
def test_what_others_ask_of_the_server_is_no_leak(serve: Serve, backend: Backend) -> None:
    engine, stub = serve(backend)
    stub.per_token = 600.0
    assert engine._slots is not None
    stub.running += 3
    engine.start()
    engine._slots._others = 3
    generation = engine.generate(call())
    until(lambda: stub.running == 4)
    generation.cancel()
    until(lambda: engine._slots is not None and engine._slots._look is not None and engine._slots._look.done())
    assert engine.leaked == 0


def test_rate_limit_windows_are_told_by_their_least_share(serve: Serve) -> None:
    engine, stub = serve("openai")
    assert engine.headroom is None
    stub.limits = {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "90",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "150",
    }
    whole(engine, call())
    assert engine.headroom == pytest.approx(0.15)
    stub.limits = {"anthropic-ratelimit-input-tokens-limit": "nan", "anthropic-ratelimit-input-tokens-remaining": "1"}
    whole(engine, call())
    assert engine.headroom == pytest.approx(0.15)


def test_a_fault_does_not_outlive_its_request(serve: Serve) -> None:
    engine, stub = serve("vllm")
    stub.faults.extend([Fault(status=500), None])
    with pytest.raises(Exception, match="500"):
        whole(engine, call())
    assert whole(engine, call()).text == "My name is Zorvek"


def test_what_is_odd_about_a_server_is_said_once(loop: RemoteLoop, caplog: pytest.LogCaptureFixture) -> None:
    """It was said again at each start: of a server that was away for a night, hundreds of times."""
    caplog.set_level(logging.INFO)
    remarks = Once(logging.getLogger("inferbus.remote"))
    with StubBackend("mlx") as first, StubBackend("mlx") as second:
        for url in (first.url, first.url, second.url):
            engine = RemoteEngine(RemotePlace("mlx", url, "m"), loop, remarks)
            for _start in range(3):
                engine.start()
            engine.stop(10)
    assert len([said for said in caplog.messages if "does not tell how long a prompt may be" in said]) == 1


def test_a_model_that_a_server_does_not_have_is_said_with_those_that_it_has(serve: Serve) -> None:
    engine, stub = serve("vllm")
    stub.always = Fault(status=404)
    with pytest.raises(EngineError) as refused:
        whole(engine, call())
    remedy = "is the model's name right (model), and the path in url?"
    assert str(refused.value) == f"vLLM at {stub.url} answered 404: {remedy} It has: {engine.model}"
