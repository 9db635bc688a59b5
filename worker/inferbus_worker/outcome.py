"""How a request ends well. How it ends badly, `Failure`, is the contract's."""

from __future__ import annotations

from typing import NamedTuple

from inferbus_worker.chat import FinishReason, ToolCall, Usage


class Timings(NamedTuple):
    """Seconds since admission; `first_token` is None where nothing was sent before the end: of what is not streamed."""

    queue: float
    first_token: float | None
    total: float


class Answered(NamedTuple):
    """The good terminal state of a request, as its replies tell it. A reset or a new session has no usage, or model."""

    text: str
    finish_reason: FinishReason = "stop"
    usage: Usage | None = None
    timings: Timings | None = None
    reasoning: str | None = None
    model: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
