"""The SDKs of OpenAI and Anthropic, through the gateway and the bus, to the demo model on a real vLLM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from support.gateway import GatewayProcess
from support.mosquitto import Mosquitto
from support.sdks import SDKS, AnthropicSync, OpenAISync, Sdk
from support.waiting import until
from support.worker import WorkerProcess

#: What each takes besides: the worker's own temperature is far from greedy.
GREEDY: Final[dict[str, Any]] = {"temperature": 0, "max_tokens": 40}
PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TALK: Final = [
    {"role": "user", "content": "My name is Zorvek"},
    {"role": "assistant", "content": "Nice to meet you, Zorvek."},
    {"role": "user", "content": "What is my name?"},
]
CITY: Final = {
    "type": "object",
    "properties": {"city": {"enum": ["Graz", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}

# Before the engine, which so starts beside it.
pytestmark = pytest.mark.usefixtures("starting_worker")


@pytest.fixture
def gateway(broker: Mosquitto, real_worker: WorkerProcess) -> Iterator[GatewayProcess]:  # noqa: ARG001 - it answers
    with GatewayProcess(broker, waits_for=("real", "engine")) as gateway:
        yield gateway


def test_each_sdk_gets_the_model_s_answer_whole_and_streamed(gateway: GatewayProcess) -> None:
    for kind in SDKS:
        sdk: Sdk = kind(gateway.url, "none")
        whole, streamed = sdk.ask("real", TALK, **GREEDY), sdk.stream("real", TALK, **GREEDY)
        assert "Zorvek" in whole.text
        assert (streamed.text, streamed.tokens, streamed.ended) == (whole.text, whole.tokens, whole.ended)
        assert streamed.pieces > 1


def test_a_tool_that_has_to_be_called_is_called_and_its_result_answered(gateway: GatewayProcess) -> None:
    asked = [{"role": "user", "content": "What is the weather like?"}]
    function = {"name": "weather", "parameters": CITY}
    chosen = {"type": "function", "function": {"name": "weather"}}
    sdk: Sdk = OpenAISync(gateway.url, "none")
    for ask in (sdk.ask, sdk.stream):
        heard = ask("engine", asked, **GREEDY, tools=[{"type": "function", "function": function}], tool_choice=chosen)
        ((call_id, name, given),) = heard.calls
        assert (name, given["city"] in {"Graz", "Rome"}) == ("weather", True)
        called = {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
        turns = [*asked, {"role": "assistant", "content": None, "tool_calls": [called]}]
        assert sdk.ask("engine", [*turns, {"role": "tool", "tool_call_id": call_id, "content": "sunny"}], **GREEDY).text
    sdk = AnthropicSync(gateway.url, "none")
    tools = [{"name": "weather", "input_schema": CITY}]
    for ask in (sdk.ask, sdk.stream):
        heard = ask("engine", asked, **GREEDY, tools=tools, tool_choice={"type": "tool", "name": "weather"})
        ((call_id, name, given),) = heard.calls
        assert (heard.ended, name, given["city"] in {"Graz", "Rome"}) == ("tool_use", "weather", True)
        turns = [
            *asked,
            {"role": "assistant", "content": [{"type": "tool_use", "id": call_id, "name": name, "input": given}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id, "content": "sunny"}]},
        ]
        assert sdk.ask("engine", turns, **GREEDY, tools=tools).text


def test_anthropic_s_output_format_is_kept_to(gateway: GatewayProcess) -> None:
    form = {"format": {"type": "json_schema", "schema": CITY}}
    heard = AnthropicSync(gateway.url, "none").ask("engine", TALK, **GREEDY, output_config=form)
    assert json.loads(heard.text)["city"] in {"Graz", "Rome"}


def test_a_model_that_sees_nothing_refuses_an_image(gateway: GatewayProcess) -> None:
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    image = {"type": "image", "source": source}
    for kind in SDKS:
        sdk: Sdk = kind(gateway.url, "none")
        asked = [{"role": "user", "content": [url if kind.errors.__name__ == "openai" else image]}]
        for ask in (sdk.ask, sdk.stream):
            with pytest.raises(sdk.errors.APIError, match=r"[Ii]mage"):
                ask("real", asked, **GREEDY)


def test_closing_a_stream_ends_it_in_the_engine(gateway: GatewayProcess) -> None:
    def running() -> int | None:
        figure: int | None = gateway.get("/api/queue-status").json["activeRequests"]
        return figure

    # An answer of several seconds: it may not end before it is as long as this.
    text = {"type": "string", "minLength": 6000}
    form = {"type": "object", "properties": {"a": text}, "required": ["a"], "additionalProperties": False}
    openai_s = {"response_format": {"type": "json_schema", "json_schema": {"name": "long", "schema": form}}}
    anthropic_s = {"output_config": {"format": {"type": "json_schema", "schema": form}}}
    for kind in SDKS:
        more = openai_s if kind.errors.__name__ == "openai" else anthropic_s
        sdk: Sdk = kind(gateway.url, "none")
        sdk.leave("engine", TALK, lambda: until(lambda: running() == 1), max_tokens=1900, **more)
        until(lambda: running() == 0)
