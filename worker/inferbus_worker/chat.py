"""The words of a chat completion that several rooms speak: below them all, so that none needs another for a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

#: One message in OpenAI's chat shape: {"role": ..., "content": a string or a list of content parts}.
Message = Mapping[str, Any]

FinishReason = Literal["stop", "length"]
Thinking = Literal["hide", "show", "off"]


class Usage(NamedTuple):
    prompt_tokens: int
    completion_tokens: int
