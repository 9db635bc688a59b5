"""Tools on a real vLLM: what is forced is called, whole and in deltas, with arguments that keep to the schema."""

from __future__ import annotations

import json
import time
from typing import Any, Final

import pytest

from inferbus_worker.chat import CallDelta, ToolUse
from inferbus_worker.engines.base import ChatCall, InvalidCallError, Sampling
from inferbus_worker.engines.vllm.chat import ChatServing
from inferbus_worker.engines.vllm.engine import VllmEngine
from support.waiting import PATIENCE

WEATHER: Final = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What the weather is like.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"enum": ["Graz", "Rome"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 5},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
STOP: Final = {"type": "function", "function": {"name": "stop"}}
NAMED: Final = {"type": "function", "function": {"name": "weather"}}


def soon() -> float:
    return time.monotonic() + PATIENCE


def calling(choice: Any, *tools: dict[str, Any], stream: bool = False, parallel: bool | None = None) -> ChatCall:
    messages = [{"role": "user", "content": "What is the weather like in Graz?"}]
    use = ToolUse(list(tools) or [WEATHER, STOP], choice, parallel)
    return ChatCall(messages, Sampling(0, 1, 200), stream=stream, tools=use)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("choice", [NAMED, "required"], ids=["named", "required"])
def test_a_forced_call_keeps_to_the_schema(engine: VllmEngine, choice: Any, *, stream: bool) -> None:
    told: list[CallDelta] = []
    call = calling(choice, WEATHER, stream=stream, parallel=False)
    done = engine.generate(call, lambda _text, _reasoning, calls=(): told.extend(calls)).wait(soon())
    (made,) = done.tool_calls
    assert (done.text, done.finish_reason, made["function"]["name"]) == ("", "tool_calls", "weather")
    arguments = json.loads(made["function"]["arguments"])
    assert arguments.keys() == {"city", "days"}
    assert (arguments["city"] in {"Graz", "Rome"}, 1 <= arguments["days"] <= 5) == (True, True)
    assert "".join(delta.arguments for delta in told) == made["function"]["arguments"]
    assert [(delta.number, delta.id, delta.name) for delta in told if delta.name] == [(0, made["id"], "weather")]


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_who_need_not_call_answers(engine: VllmEngine, choice: str) -> None:
    done = engine.generate(calling(choice)).wait(soon())
    assert (done.tool_calls, bool(done.text)) == ((), True)


def test_a_call_that_is_cut_at_its_longest_is_none(engine: VllmEngine) -> None:
    call = calling(NAMED)
    done = engine.generate(call._replace(sampling=Sampling(0, 1, 3))).wait(soon())
    assert (done.finish_reason, done.tool_calls) == ("length", ())


def test_a_schema_that_cannot_be_followed_is_the_requesters(engine: VllmEngine) -> None:
    never = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 2, "maximum": 1}}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "never", "parameters": never}}
    with pytest.raises(InvalidCallError):
        engine.generate(calling("required", tool)).wait(soon())


def test_a_conversation_in_which_tools_were_called_goes_on(engine: VllmEngine) -> None:
    made = engine.generate(calling(NAMED)).wait(soon()).tool_calls
    first = calling(NAMED).messages
    said = [
        {"role": "assistant", "content": "", "tool_calls": list(made)},
        {"role": "tool", "tool_call_id": made[0]["id"], "content": "It rains."},
    ]
    done = engine.generate(calling("auto")._replace(messages=[*first, *said])).wait(soon())
    assert (done.finish_reason, bool(done.text)) == ("stop", True)


def test_a_model_that_vllm_has_no_parser_for_takes_none(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChatServing, "takes_tools", property(lambda _serving: False))
    with pytest.raises(InvalidCallError, match="takes no tools"):
        engine.generate(calling("auto")).wait(soon())
