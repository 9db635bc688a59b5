"""What the simulated engine calls where tools are offered: what it is told to, as it says what it is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from inferbus_worker.chat import CallDelta, ToolCall
from inferbus_worker.engines.base import ChatCall, Completion
from inferbus_worker.engines.tool_calls import ToolCalls


def called(call: ChatCall, text: str) -> tuple[ToolCall, ...]:
    """The call that a message asks for, which is the requester's to write: `{"name": …, "arguments": {…}}`.

    Where a call is forced, any other message calls the tool that is named, or the first: with what the message says, if
    that is an object, else with nothing. What a tool has said is no such message.

    Raises:
        EngineError: they are larger than a call may be.
    """
    use = call.tools
    if use is None or use.choice == "none" or (call.messages[-1]["role"] == "tool" and not use.is_forced):
        return ()
    said = _object(text)
    names = [tool["function"]["name"] for tool in use.tools]
    name, arguments = said.get("name"), said.get("arguments")
    if name not in names or not isinstance(arguments, Mapping):
        if not use.is_forced:
            return ()
        name, arguments = use.named or names[0], said
    calls = ToolCalls()
    calls.grow([CallDelta(0, None, name, json.dumps(arguments))])
    return calls.whole()


def in_one_piece(answer: Completion) -> list[CallDelta]:
    """All that an answer calls, as one delta."""
    return [
        CallDelta(number, call["id"], call["function"]["name"], call["function"]["arguments"])
        for number, call in enumerate(answer.tool_calls)
    ]


def _object(text: str) -> Mapping[str, Any]:
    try:
        said = from_json(text) if text.lstrip().startswith("{") else {}
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
