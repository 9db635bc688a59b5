"""The words of a chat completion that several rooms speak: below them all, so that none needs another for a word."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from inferbus_client.units import Int64

#: One message in OpenAI's chat shape: {"role": ..., "content": a string or a list of content parts}.
Message = Mapping[str, Any]

#: A call in OpenAI's shape: {"id": ..., "type": "function", "function": {"name": ..., "arguments": JSON in a text}}.
ToolCall = Mapping[str, Any]

FinishReason = Literal["stop", "length", "tool_calls"]
Thinking = Literal["hide", "show", "off"]


#: What a content part, a tool call or anything else takes that is built of dictionaries, in bytes.
_PART_BYTES: Final = 512


class ToolUse(NamedTuple):
    """What a model may call.

    Attributes:
        tools: in OpenAI's shape.
        choice: `auto`, `none`, `required`, or OpenAI's object that names one.
        parallel: whether it may call several at once; None: as the engine has it.
    """

    tools: Sequence[Mapping[str, Any]]
    choice: str | Mapping[str, Any] = "auto"
    parallel: bool | None = None

    @property
    def named(self) -> str | None:
        """The tool that has to be called, where it has to be a certain one."""
        return None if isinstance(self.choice, str) else str(self.choice["function"]["name"])

    @property
    def is_forced(self) -> bool:
        """Whether the answer has to be a call."""
        return self.choice == "required" or self.named is not None


class CallDelta(NamedTuple):
    """What is new of one call of a tool: which one it is, and, at its beginning, its id and the tool's name."""

    number: int
    id: str | None
    name: str | None
    arguments: str = ""


class Usage(NamedTuple):
    prompt_tokens: Int64
    completion_tokens: Int64


def publishable(text: str) -> str:
    """Text that UTF-8 can hold; a lone surrogate, which a model can produce and MQTT and JSON forbid, becomes `?`."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def memory_of(content: Any) -> int:
    """The memory of a message's content, or its calls, in bytes; an image counts as the data URI that it is."""
    if isinstance(content, str):
        return sys.getsizeof(content)
    if isinstance(content, Mapping):
        return _PART_BYTES + sum(memory_of(value) for value in content.values())
    if isinstance(content, list | tuple):
        return sum(memory_of(part) for part in content)
    return sys.getsizeof(content)
