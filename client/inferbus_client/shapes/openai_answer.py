"""Answers, and the pieces of one, in OpenAI's shape; and why there is none."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, Final

from pydantic_core import to_json

from inferbus_client.contract.wire import Delta, Usage
from inferbus_client.exchange.answer import Answer

#: Where in a request something is wrong, as a detail begins: `messages.0.content: …`.
_WHERE: Final = re.compile(r"([A-Za-z_][\w.-]{0,127}): ")
#: By HTTP status; everything else is the server's fault.
_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}


def completion(answer: Answer, model: str) -> dict[str, Any]:
    """A whole chat completion."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.tool_calls:
        message |= {"content": answer.text or None, "tool_calls": [call.model_dump() for call in answer.tool_calls]}
    if answer.reasoning is not None:
        message["reasoning_content"] = answer.reasoning
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
    body: dict[str, Any] = {
        "id": f"chatcmpl-{answer.request_id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
    }
    if answer.usage is not None:
        body["usage"] = usage(answer.usage)
    return body


def usage(used: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    }


def error(message: str, code: str, status: int, param: str | None = None) -> dict[str, Any]:
    """Why there is no answer."""
    kind = _TYPES.get(status, "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def event(fields: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + to_json(fields) + b"\n\n"


def where(detail: str) -> str | None:
    """The parameter that a failure's detail is about, where it is about one."""
    found = _WHERE.match(detail)
    return None if found is None else found[1]


class Chunks:
    """The server-sent events of one streamed completion.

    Args:
        request_id: of the request.
        model: what it asked for.
        with_usage: whether the last chunk tells of tokens (`stream_options.include_usage`).
    """

    def __init__(self, request_id: str, model: str, *, with_usage: bool) -> None:
        head = {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._head = b"data: " + to_json(head)[:-1]
        # What all chunks but the last say of it, where it is asked for.
        self._tail = b',"usage":null}\n\n' if with_usage else b"}\n\n"
        self._with_usage = with_usage

    def begin(self) -> bytes:
        """Who speaks."""
        return self._chunk({"role": "assistant", "content": ""})

    def delta(self, delta: Delta) -> bytes:
        fields: dict[str, Any] = {}
        if delta.text:
            fields["content"] = delta.text
        if delta.reasoning is not None:
            fields["reasoning_content"] = delta.reasoning
        if delta.tool_calls is not None:
            fields["tool_calls"] = [call.model_dump() for call in delta.tool_calls]
        return self._chunk(fields)

    def end(self, answer: Answer) -> bytes:
        """Why it has ended, what it has taken, and the end."""
        last = self._chunk({}, answer.finish_reason)
        if self._with_usage:
            used = None if answer.usage is None else usage(answer.usage)
            last += self._head + b',"choices":[],"usage":' + to_json(used) + b"}\n\n"
        return last + b"data: [DONE]\n\n"

    def _chunk(self, fields: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
        choice = b',"choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]'
        return self._head + choice % (to_json(fields), to_json(finish_reason)) + self._tail
