"""A `ChatCall` in the shape of OpenAI's chat completions, always streamed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from itertools import islice
from typing import Any, Final

from inferbus_worker.engines.base import ChatCall
from inferbus_worker.engines.loop_generation import Chunk
from inferbus_worker.engines.remote.connections import Connections
from inferbus_worker.engines.remote.errors import in_stream
from inferbus_worker.engines.remote.parts import (
    Tally,
    answer_bound,
    calls,
    checked,
    finish_reason,
    mapping,
    offered,
    readable,
    schema,
    text,
    until_its_end,
)
from inferbus_worker.engines.remote.place import RemotePlace

#: Both names of the field that reasoning comes in: servers change from the second to the first.
_REASONING: Final = ("reasoning", "reasoning_content")
#: Choices of one event that are looked at; one was asked for, and its number is 0.
_CHOICES: Final = 4


async def answer(
    place: RemotePlace, model: str, context: int, call: ChatCall, connections: Connections
) -> AsyncGenerator[Chunk, None]:
    """Yield the answer's chunks, the last with finish reason and usage.

    Raises:
        EngineError: one of the tree in `base`.
        Exception: whatever the connection or a malformed answer raises.
    """
    tally = Tally(call)
    body = request(place, model, context, call)
    async with connections.events(f"{place.row.base}/chat/completions", body, call.trace) as stream:
        async for event in until_its_end(stream, tally):
            if not isinstance(event, Mapping):
                raise TypeError("no object")
            if event.get("object") == "error":  # of older vLLMs
                raise in_stream(place, event, stream.response.headers)
            usage = mapping(event.get("usage"))
            tally.tell(usage.get("prompt_tokens"), usage.get("completion_tokens"))
            for choice in islice(event.get("choices") or (), _CHOICES):
                if tally.reason is not None or choice.get("index"):
                    continue
                delta = mapping(choice.get("delta"))
                called = calls(delta.get("tool_calls"))
                grown = Chunk(text(delta.get("content")), _reasoning(place, delta), calls=called)
                if grown.text or grown.reasoning or called:
                    tally.say(grown.text + grown.reasoning + "".join(call.arguments for call in called))
                    yield grown
                if choice.get("finish_reason") is not None:
                    tally.reason = finish_reason(choice["finish_reason"], call.tools)
    yield tally.last(place)


def request(place: RemotePlace, model: str, context: int, call: ChatCall) -> dict[str, Any]:
    """The body. What the operator has put into the slot's options gives way to what the call says.

    Raises:
        InvalidCallError: the server does not take what the call asks for.
    """
    row = place.row
    extra = checked(call, row)
    form = extra.pop("response_format", None)
    body: dict[str, Any] = {
        **place.options,
        **{row.parameters[name]: value for name, value in extra.items()},
        "model": model,
        "messages": [dict(readable(message)) for message in call.messages],
        "stream": True,
        "temperature": call.sampling.temperature,
        row.max_tokens: answer_bound(call, place, context),
    }
    if not (row.omits_top_p and call.sampling.top_p == 1):
        body["top_p"] = call.sampling.top_p
    if form is not None:
        body |= {"json_schema": schema(form)} if row.form == "schema" else {"response_format": form}
    if (use := offered(call, row)) is not None:
        body |= {"tools": list(use.tools), "tool_choice": use.choice}
        if use.parallel is not None:
            body["parallel_tool_calls"] = use.parallel
    if row.usage_option:
        body["stream_options"] = {"include_usage": True}
    if row.cache_salt and call.cache_salt is not None:
        body["cache_salt"] = call.cache_salt
    if call.thinking == "off":
        for name, value in row.no_thinking.items():
            body[name] = {**mapping(body.get(name)), **value} if isinstance(value, Mapping) else value
    return body


def _reasoning(place: RemotePlace, delta: Mapping[str, Any]) -> str:
    return next((said for name in (place.row.reasoning, *_REASONING) if (said := text(delta.get(name)))), "")
