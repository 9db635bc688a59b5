"""A `ChatCall` through Ollama's own endpoint, which takes what its OpenAI shape cannot carry: options, samplers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

from inferbus_worker.chat import Message
from inferbus_worker.engines.base import ChatCall, InvalidCallError
from inferbus_worker.engines.loop_generation import Chunk
from inferbus_worker.engines.remote.connections import Connections
from inferbus_worker.engines.remote.errors import in_stream
from inferbus_worker.engines.remote.parts import (
    Tally,
    answer_bound,
    arguments,
    calls,
    checked,
    data_uri,
    finish_reason,
    mapping,
    offered,
    schema,
    text,
    until_its_end,
)
from inferbus_worker.engines.remote.place import RemotePlace

#: By our names; Ollama's own beside those that differ.
_SAMPLERS: Final[Mapping[str, str]] = {
    "stop": "stop",
    "seed": "seed",
    "top_k": "top_k",
    "min_p": "min_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repeat_penalty",
}
#: Of a slot's options, those that stand beside `options` in a request.
_BESIDE: Final = frozenset({"keep_alive", "think", "template"})


def is_needed(place: RemotePlace, call: ChatCall) -> bool:
    """Whether the OpenAI shape cannot say it."""
    return bool(place.options) or not call.sampling.extra.keys() <= place.row.parameters.keys() | {"response_format"}


async def answer(
    place: RemotePlace, model: str, context: int, call: ChatCall, connections: Connections
) -> AsyncGenerator[Chunk, None]:
    """See `openai_shape.answer`."""
    tally, begun = Tally(call), 0
    lines = connections.lines("/api/chat", request(place, model, context, call), call.trace)
    async with contextlib.aclosing(lines):  # type: ignore[type-var]
        async for line in until_its_end(lines, tally):
            if not isinstance(line, Mapping):
                raise TypeError("no object")
            if "error" in line:
                raise in_stream(place, line, {})
            if tally.reason is not None:
                continue
            message = mapping(line.get("message"))
            called = [
                one._replace(number=begun + number) for number, one in enumerate(calls(message.get("tool_calls")))
            ]
            begun += len(called)  # each comes whole, and every line counts from 0
            grown = Chunk(text(message.get("content")), text(message.get("thinking")), calls=called)
            if grown.text or grown.reasoning or called:
                tally.say(grown.text + grown.reasoning + "".join(call.arguments for call in called))
                yield grown
            if line.get("done") is True:
                tally.tell(line.get("prompt_eval_count"), line.get("eval_count"))
                tally.reason = finish_reason(line.get("done_reason", "stop"), call.tools)
    yield tally.last(place)


def request(place: RemotePlace, model: str, context: int, call: ChatCall) -> dict[str, Any]:
    """The body.

    Raises:
        InvalidCallError: the server does not take what the call asks for.
    """
    extra = checked(call, place.row, also=frozenset(_SAMPLERS))
    form = extra.pop("response_format", None)
    body: dict[str, Any] = {
        **{name: value for name, value in place.options.items() if name in _BESIDE},
        "model": model,
        "messages": _messages(call.messages),
        "stream": True,
        "options": {
            **{name: value for name, value in place.options.items() if name not in _BESIDE},
            **{_SAMPLERS[name]: value for name, value in extra.items()},
            "temperature": call.sampling.temperature,
            "top_p": call.sampling.top_p,
            "num_predict": answer_bound(call, place, context),
        },
    }
    if (use := offered(call, place.row)) is not None:
        body["tools"] = list(use.tools)
    if form is not None:
        body["format"] = "json" if form.get("type") == "json_object" else schema(form)
    if call.thinking == "off":
        body["think"] = False
    return body


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Calls have no ids here: a result says which tool it is of."""
    names = {call["id"]: call["function"]["name"] for message in messages for call in message.get("tool_calls") or ()}
    return [_message(message, names.get(message.get("tool_call_id", ""))) for message in messages]


def _message(message: Message, tool: str | None) -> dict[str, Any]:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    said: dict[str, Any] = {
        "role": message["role"],
        "content": "\n".join(part["text"] for part in parts if part["type"] == "text") if parts else content or "",
    }
    if tool is not None:
        said["tool_name"] = tool
    images = [_image(part) for part in parts if part["type"] == "image_url"]
    if images:
        said["images"] = images
    if calls := message.get("tool_calls"):
        said["tool_calls"] = [
            {"function": {"name": call["function"]["name"], "arguments": arguments(call["function"]["arguments"])}}
            for call in calls
        ]
    return said


def _image(part: Mapping[str, Any]) -> str:
    """What stands in a data URI."""
    head, data = data_uri(part)
    if not head.endswith(";base64"):
        raise InvalidCallError("An image must be a data URI in base64.")
    return data
