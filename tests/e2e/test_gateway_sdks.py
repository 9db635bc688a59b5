"""The real SDKs of OpenAI and Anthropic against a real gateway, a real Mosquitto and real workers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
import yaml

from inferbus_client.gateway.keys_file import hash_of
from support.gateway import GatewayProcess, told
from support.mosquitto import Mosquitto, free_port
from support.needs import needs_module
from support.sdks import SDKS, AnthropicSync, Heard, OpenAISync, Sdk
from support.waiting import PATIENCE, until
from support.worker import WorkerProcess

needs_module("openai")

StartWorker = Callable[..., WorkerProcess]

KEY: Final = f"ib-{'0123456789ab' * 4}"
MODELS: Final = ("sdk", "sdk-limited", "sdk-endless")
HELLO: Final = [{"role": "user", "content": "hello there, bus"}]
PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PARAMETERS: Final = {"type": "object", "properties": {"a": {"type": "integer"}}}
#: What makes the simulated engine call a tool.
CALL: Final = json.dumps({"name": "add", "arguments": {"a": 1}})


@pytest.fixture(scope="module")
def endless_http() -> int:
    return free_port()


@pytest.fixture(scope="module")
def gateway(broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory, endless_http: int) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    keys, config = folder / "keys.yaml", folder / "worker.yaml"
    keys.write_text(f'keys: {{tests: {{hash: "{hash_of(KEY)}"}}}}')
    keys.chmod(0o600)
    models = {"quick": {"engine": "simulated"}, "other": {"engine": "simulated"}}
    projects = {
        "sdk": {"tools": True, "model": "quick", "models": [*models]},
        "sdk-limited": {"model": "quick", "project_rate_limit": "1/2s"},
    }
    config.write_text(yaml.safe_dump({"models": models, "projects": projects, "rate_limit": "off"}))
    endless: dict[str, Any] = {
        "simulated_per_token": "10m",
        "drain_timeout": "0s",
        "http": endless_http,
        "rate_limit": "off",
    }
    with (
        WorkerProcess(broker, config=config),
        WorkerProcess(broker, projects="sdk-endless", **endless),
        GatewayProcess(broker, "--api-keys", str(keys), key=KEY, waits_for=MODELS) as gateway,
    ):
        yield gateway


@pytest.fixture(params=SDKS, ids=lambda sdk: sdk.__name__)
def kind(request: pytest.FixtureRequest) -> type[Sdk]:
    chosen: type[Sdk] = request.param
    return chosen


@pytest.fixture
def sdk(kind: type[Sdk], gateway: GatewayProcess) -> Sdk:
    return kind(gateway.url, KEY)


def test_a_whole_answer(sdk: Sdk) -> None:
    heard = sdk.ask("sdk", HELLO)
    assert (heard.text, heard.model, heard.calls) == ("hello there, bus", "sdk", ())
    assert heard.ended in {"stop", "end_turn"}
    assert heard.tokens is not None
    assert min(heard.tokens) > 0


def test_a_streamed_one_is_the_same_in_pieces(sdk: Sdk) -> None:
    whole, streamed = sdk.ask("sdk", HELLO), sdk.stream("sdk", HELLO)
    assert streamed.pieces > 0
    assert Heard(**{**vars(streamed), "pieces": 0}) == whole


def test_a_model_may_be_named_behind_its_project(sdk: Sdk) -> None:
    assert sdk.ask("sdk/other", HELLO).model == "sdk/other"


def test_one_that_is_cut_says_so(sdk: Sdk) -> None:
    for heard in (sdk.ask("sdk", HELLO, max_tokens=1), sdk.stream("sdk", HELLO, max_tokens=1)):
        assert heard.ended in {"length", "max_tokens"}
        assert heard.tokens is not None
        assert heard.tokens[1] == 1


def active(port: int) -> int:
    """How many requests a worker has under way."""
    return int(told(port, "/api/queue-status")[1]["activeRequests"])


def test_closing_a_stream_ends_it_in_the_engine(sdk: Sdk, endless_http: int) -> None:
    sdk.leave("sdk-endless", HELLO, lambda: until(lambda: active(endless_http) == 1))
    until(lambda: active(endless_http) == 0)


def test_so_does_whoever_waits_no_longer_for_a_whole_answer(
    kind: type[Sdk], gateway: GatewayProcess, endless_http: int
) -> None:
    with pytest.raises(kind.errors.APITimeoutError):
        kind(gateway.url, KEY, timeout=1).ask("sdk-endless", HELLO)
    until(lambda: active(endless_http) == 0)


def test_their_own_retries_wait_as_long_as_they_are_told_to(kind: type[Sdk], gateway: GatewayProcess) -> None:
    patient = kind(gateway.url, KEY, retries=5)
    heard = [patient.ask("sdk-limited", HELLO) for _ in range(2)]
    assert [one.text for one in heard] == ["hello there, bus"] * 2
    assert heard[1].retries > 0


def test_without_retries_a_limit_is_an_error_that_says_when_to_ask_again(sdk: Sdk) -> None:
    def ask_again_and_again() -> None:
        for _ in range(3):
            sdk.stream("sdk-limited", HELLO)

    with pytest.raises(sdk.errors.RateLimitError) as refused:
        ask_again_and_again()
    headers = refused.value.response.headers
    assert (headers["x-should-retry"], headers["x-inferbus-reason"]) == ("true", "rate_limited")
    assert 0 < int(headers["retry-after-ms"]) <= 2000
    assert 1 <= int(headers["retry-after"]) <= 2


def test_a_wrong_key_is_no_key(kind: type[Sdk], gateway: GatewayProcess) -> None:
    for wrong in ("none", f"ib-{'0' * 48}"):
        with pytest.raises(kind.errors.AuthenticationError):
            kind(gateway.url, wrong).ask("sdk", HELLO)


@pytest.mark.parametrize("name", ["nobody", "sdk/nobody", "sdk/"])
def test_a_model_that_is_not_there_is_not_found(sdk: Sdk, name: str) -> None:
    for ask in (sdk.ask, sdk.stream):
        with pytest.raises(sdk.errors.NotFoundError) as refused:
            ask(name, HELLO)
        assert refused.value.request_id is not None
        assert refused.value.response.headers["x-should-retry"] == "false"


def test_what_cannot_be_done_is_refused_by_its_name(sdk: Sdk) -> None:
    wrong: dict[str, Any] = {"n": 2} if sdk.errors.__name__ == "openai" else {"thinking": {"type": "adaptive"}}
    (name,) = wrong
    for ask in (sdk.ask, sdk.stream):
        with pytest.raises(sdk.errors.BadRequestError, match=name):
            ask("sdk", HELLO, **wrong)


def test_a_fault_that_the_wire_finds_has_the_shape_s_name(sdk: Sdk) -> None:
    with pytest.raises(sdk.errors.BadRequestError, match="max_tokens: must be at least 1"):
        sdk.ask("sdk", HELLO, max_tokens=0)


def test_what_does_not_fit_the_model_is_refused(sdk: Sdk) -> None:
    long = [{"role": "user", "content": "word " * 40_000}]
    with pytest.raises(sdk.errors.BadRequestError, match="does not fit the model's context") as refused:
        sdk.ask("sdk", long)
    assert refused.value.response.headers["x-inferbus-reason"] == "context_too_long"
    # A worker finds that when it has taken the request, and the stream has begun.
    with pytest.raises(sdk.errors.APIError, match="does not fit the model's context"):
        sdk.stream("sdk", long)


#: Some minutes for what is asked here.
SLOW: Final = {"simulated_per_token": "200ms"}


@pytest.mark.slow
def test_a_worker_that_dies_in_the_middle_is_an_error_and_one_that_comes_back_an_answer(
    own_broker: Mosquitto, start_worker: StartWorker
) -> None:
    worker = start_worker(broker=own_broker, **SLOW, rate_limit="off", drain_timeout="0s")
    long = [{"role": "user", "content": "word " * 2000}]
    with GatewayProcess(own_broker) as gateway, ThreadPoolExecutor(len(SDKS)) as pool:
        under_way = [pool.submit(kind(gateway.url, "none").stream, "general", long) for kind in SDKS]
        until(lambda: gateway.get("/api/queue-status").json["activeRequests"] == len(SDKS))
        worker.kill()
        died = time.monotonic()
        for kind, one in zip(SDKS, under_way, strict=True):
            with pytest.raises(kind.errors.APIError, match="The worker has gone"):
                one.result(PATIENCE)
        assert time.monotonic() - died < 5
        waiting = [pool.submit(kind(gateway.url, "none", retries=20).ask, "general", HELLO) for kind in SDKS]
        worker.start()
        assert [one.result(PATIENCE).text for one in waiting] == ["hello there, bus"] * len(SDKS)


class TestTools:
    def test_openai_calls_and_goes_on(self, gateway: GatewayProcess) -> None:
        sdk = OpenAISync(gateway.url, KEY)
        tools = [{"type": "function", "function": {"name": "add", "parameters": PARAMETERS}}]
        turns: list[dict[str, Any]] = [{"role": "user", "content": CALL}]
        for heard in (sdk.ask("sdk", turns, tools=tools), sdk.stream("sdk", turns, tools=tools)):
            ((call_id, name, given),) = heard.calls
            assert (heard.ended, name, given) == ("tool_calls", "add", {"a": 1})
            called = {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
            result = {"role": "tool", "tool_call_id": call_id, "content": "2"}
            conversation = [*turns, {"role": "assistant", "content": None, "tool_calls": [called]}, result]
            assert sdk.ask("sdk", conversation, tools=tools).text == "2"
            assert sdk.stream("sdk", conversation, tools=tools).text == "2"

    def test_anthropic_calls_and_goes_on(self, gateway: GatewayProcess) -> None:
        sdk = AnthropicSync(gateway.url, KEY)
        tools = [{"name": "add", "input_schema": PARAMETERS}]
        turns: list[dict[str, Any]] = [{"role": "user", "content": CALL}]
        for heard in (sdk.ask("sdk", turns, tools=tools), sdk.stream("sdk", turns, tools=tools)):
            ((call_id, name, given),) = heard.calls
            assert (heard.ended, name, given) == ("tool_use", "add", {"a": 1})
            called = {"type": "tool_use", "id": call_id, "name": name, "input": given}
            result = {"type": "tool_result", "tool_use_id": call_id, "content": "2", "is_error": True}
            conversation = [
                *turns,
                {"role": "assistant", "content": [called]},
                {"role": "user", "content": [result]},
            ]
            assert sdk.ask("sdk", conversation, tools=tools).text == "Error: 2"
            assert sdk.stream("sdk", conversation, tools=tools).text == "Error: 2"

    def test_a_choice_is_passed_on(self, gateway: GatewayProcess) -> None:
        described = [{"type": "function", "function": {"name": name}} for name in ("add", "sub")]
        chosen = {"type": "function", "function": {"name": "sub"}}
        heard = OpenAISync(gateway.url, KEY).ask("sdk", HELLO, tools=described, tool_choice=chosen)
        assert [name for _, name, _ in heard.calls] == ["sub"]
        offered = [{"name": name, "input_schema": PARAMETERS} for name in ("add", "sub")]
        choice = {"type": "tool", "name": "sub", "disable_parallel_tool_use": True}
        heard = AnthropicSync(gateway.url, KEY).ask("sdk", HELLO, tools=offered, tool_choice=choice)
        assert [(name, given) for _, name, given in heard.calls] == [("sub", {})]


class TestImages:
    def test_one_that_comes_along_is_passed_on(self, gateway: GatewayProcess) -> None:
        text = {"type": "text", "text": "look"}
        url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
        assert OpenAISync(gateway.url, KEY).ask("sdk", [{"role": "user", "content": [url, text]}]).text == "look"
        source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
        blocks = [{"type": "image", "source": source}, text]
        assert AnthropicSync(gateway.url, KEY).ask("sdk", [{"role": "user", "content": blocks}]).text == "look"

    def test_one_that_had_to_be_fetched_is_refused(self, gateway: GatewayProcess) -> None:
        where = "https://example.com/a.png"
        asked = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": where}}]}]
        sdk: Sdk = OpenAISync(gateway.url, KEY)
        with pytest.raises(sdk.errors.BadRequestError, match="image_url"):
            sdk.ask("sdk", asked)
        asked = [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": where}}]}]
        sdk = AnthropicSync(gateway.url, KEY)
        with pytest.raises(sdk.errors.BadRequestError, match=r"messages\.0\.content\.0\.source: type url is not"):
            sdk.ask("sdk", asked)
