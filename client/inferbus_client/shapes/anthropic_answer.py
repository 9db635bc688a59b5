"""Answers, and the events of a streamed one, in Anthropic's shape; and why there is none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pydantic_core import from_json, to_json

from inferbus_client.contract.wire import Delta
from inferbus_client.contract.wire.messages import ToolCall
from inferbus_client.exchange.answer import Answer

#: The name of a server-sent event, and its data.
Event = tuple[str, dict[str, Any]]

#: That the connection lives.
PING: Final[Event] = ("ping", {"type": "ping"})

#: By HTTP status. Anthropic says overloaded with 529, which is no status of HTTP; we say it with 503.
_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_SERVERS_FAULT: Final = 500
_STOP_REASONS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def message(answer: Answer, model: str) -> dict[str, Any]:
    """A whole message. Which stop sequence has ended an answer the contract does not tell: that is `end_turn`, too.

    Args:
        answer: what the worker has answered.
        model: what the request asked for.
    """
    blocks = [_thinking(answer.reasoning)] if answer.reasoning else []
    # Whoever reads the first block finds one.
    if answer.text or not (blocks or answer.tool_calls):
        blocks.append(_text(answer.text))
    blocks += [_tool_use(call, _input(call.function.arguments)) for call in answer.tool_calls]
    return {**_head(answer.request_id, model), "content": blocks, **_ending(answer), "usage": _usage(answer)}


def error(message: str, status: int, request_id: str | None = None) -> dict[str, Any]:
    """Why there is no answer; in the middle of a stream the data of an event `error`."""
    kind = _TYPES.get(status, "api_error" if status >= _SERVERS_FAULT else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}


def server_sent(events: Iterable[Event]) -> bytes:
    """Events as they travel."""
    return b"".join(b"event: %b\ndata: %b\n\n" % (name.encode(), to_json(data)) for name, data in events)


class Events:
    """The events of one streamed message.

    Args:
        request_id: of the request.
        model: what it asked for.
    """

    def __init__(self, request_id: str, model: str) -> None:
        self._message = _head(request_id, model)
        # The block that is being said, and the number of the next one.
        self._open: str | None = None
        self._next = 0

    def begin(self) -> Iterator[Event]:
        """Who speaks. How many tokens were asked is known at the end."""
        usage = {"input_tokens": 0, "output_tokens": 0}
        said = {**self._message, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        yield "message_start", {"type": "message_start", "message": said}

    def delta(self, delta: Delta) -> Iterator[Event]:
        """What is new in words. Calls of tools are said at the end, whole.

        So does Anthropic, unless a tool asks for `eager_input_streaming`: what a model writes may turn out to be no
        JSON, of which the SDK raises an error, and a part that was lost on the way could not be mended.
        """
        if delta.reasoning:
            yield from self._say("thinking", _thinking(""), {"type": "thinking_delta", "thinking": delta.reasoning})
        if delta.text:
            yield from self._say("text", _text(""), {"type": "text_delta", "text": delta.text})

    def end(self, answer: Answer) -> Iterator[Event]:
        """What the model calls, why the message has ended, what it has taken, and the end."""
        for call in answer.tool_calls:
            yield from self._stop()
            written = json.dumps(_input(call.function.arguments))
            yield from self._say("tool_use", _tool_use(call, {}), {"type": "input_json_delta", "partial_json": written})
        if not self._next:
            yield from self._start("text", _text(""))
        yield from self._stop()
        yield "message_delta", {"type": "message_delta", "delta": _ending(answer), "usage": _usage(answer)}
        yield "message_stop", {"type": "message_stop"}

    def _say(self, kind: str, block: Mapping[str, Any], delta: Mapping[str, Any]) -> Iterator[Event]:
        if self._open != kind:
            yield from self._stop()
            yield from self._start(kind, block)
        yield "content_block_delta", {"type": "content_block_delta", "index": self._next - 1, "delta": delta}

    def _start(self, kind: str, block: Mapping[str, Any]) -> Iterator[Event]:
        yield "content_block_start", {"type": "content_block_start", "index": self._next, "content_block": block}
        self._open, self._next = kind, self._next + 1

    def _stop(self) -> Iterator[Event]:
        if self._open is not None:
            self._open = None
            yield "content_block_stop", {"type": "content_block_stop", "index": self._next - 1}


def _head(request_id: str, model: str) -> dict[str, Any]:
    return {"id": f"msg_{request_id}", "type": "message", "role": "assistant", "model": model}


def _ending(answer: Answer) -> dict[str, Any]:
    return {"stop_reason": _STOP_REASONS[answer.finish_reason], "stop_sequence": None}


def _usage(answer: Answer) -> dict[str, int]:
    used = answer.usage
    return {
        "input_tokens": 0 if used is None else used.prompt_tokens,
        "output_tokens": 0 if used is None else used.completion_tokens,
    }


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _thinking(thought: str) -> dict[str, Any]:
    """What the model has thought. It is not signed: nobody here asks whose it was when it comes back."""
    return {"type": "thinking", "thinking": thought, "signature": ""}


def _tool_use(call: ToolCall, given: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.function.name, "input": given}


def _input(arguments: str) -> dict[str, Any]:
    """What a tool is called with. What is no JSON object is wrapped in one, by the name that Anthropic's guide has.

    A tool that expects something else then complains, and the model reads that. With nothing in its place the tool
    might do what was never asked for.
    """
    try:
        said = from_json(arguments or "{}")
        # Numbers may be too large for JSON, and become infinite.
        json.dumps(said, allow_nan=False)
    except ValueError:
        said = None
    return said if isinstance(said, dict) else {"INVALID_JSON": arguments}
