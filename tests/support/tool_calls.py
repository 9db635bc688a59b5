"""Tools, and calls that offer them to an engine."""

from __future__ import annotations

from typing import Any, Final

from inferbus_worker.chat import Message, ToolUse
from inferbus_worker.engines.base import ChatCall, Sampling

PARAMETERS: Final = {"type": "object", "properties": {"a": {"type": "integer"}}}
ADD: Final[dict[str, Any]] = {
    "type": "function",
    "function": {"name": "add", "description": "Add.", "parameters": PARAMETERS},
}
OTHER: Final[dict[str, Any]] = {"type": "function", "function": {"name": "other"}}
TOOLS: Final = [ADD, OTHER]


def asked(
    text: str = "add one",
    *,
    tools: ToolUse | None = None,
    messages: list[Message] | None = None,
    max_tokens: int = 64,
    **extra: Any,
) -> ChatCall:
    sampling = Sampling(0.0, 1.0, max_tokens, extra)
    return ChatCall(messages or [{"role": "user", "content": text}], sampling, cache_salt="s", tools=tools)


def called(name: str, arguments: str, call_id: str = "call_1") -> dict[str, Any]:
    """A call in OpenAI's shape."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
