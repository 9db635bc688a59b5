"""A `ChatCall` in the shape of Anthropic's messages, always streamed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

from inferbus_worker.chat import CallDelta, Message, ToolUse
from inferbus_worker.engines.base import ChatCall, InvalidCallError
from inferbus_worker.engines.loop_generation import Chunk
from inferbus_worker.engines.remote.connections import Connections
from inferbus_worker.engines.remote.parts import (
    Tally,
    answer_bound,
    arguments,
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
from inferbus_worker.engines.remote.row import figure

#: What it takes of a call that another server's model has made.
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")
#: The prompt's tokens, those from and for the cache too.
_PROMPT: Final = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


async def answer(
    place: RemotePlace, model: str, context: int, call: ChatCall, connections: Connections
) -> AsyncGenerator[Chunk, None]:
    """See `openai_shape.answer`."""
    tally, prompt = Tally(call), dict[str, int]()
    async with connections.events("/v1/messages", request(place, model, context, call), call.trace) as stream:
        async for event in until_its_end(stream, tally):
            kind = event["type"]
            if tally.reason is not None:
                continue
            if kind == "content_block_delta":
                delta = mapping(event.get("delta"))
                arguments_grown = text(delta.get("partial_json"))
                called = [CallDelta(_number(event), None, None, arguments_grown)] if arguments_grown else []
                grown = Chunk(text(delta.get("text")), text(delta.get("thinking")), calls=called)
                if grown.text or grown.reasoning or called:
                    tally.say(grown.text + grown.reasoning + arguments_grown)
                    yield grown
            elif kind == "content_block_start":
                block = mapping(event.get("content_block"))
                if block.get("type") == "tool_use":
                    yield Chunk(calls=[CallDelta(_number(event), text(block.get("id")), text(block.get("name")))])
            elif kind in {"message_start", "message_delta"}:
                usage = mapping(event.get("usage") or mapping(event.get("message")).get("usage"))
                # A later event may repeat some of the figures alone: the others still hold.
                prompt |= {name: told for name in _PROMPT if (told := figure(usage.get(name))) is not None}
                tally.tell(sum(prompt.values()) if prompt else None, usage.get("output_tokens"))
                if reason := mapping(event.get("delta")).get("stop_reason"):
                    tally.reason = finish_reason(reason, call.tools)
    yield tally.last(place)


def request(place: RemotePlace, model: str, context: int, call: ChatCall) -> dict[str, Any]:
    """The body. What the operator has put into the slot's options gives way to what the call says.

    Raises:
        InvalidCallError: the server does not take what the call asks for.
    """
    row = place.row
    extra = checked(call, row)
    form = extra.pop("response_format", None)
    stops = extra.get("stop")
    if isinstance(stops, str):
        extra["stop"] = [stops]
    system, messages = conversation(call.messages)
    body: dict[str, Any] = {
        **place.options,
        **{row.parameters[name]: value for name, value in extra.items()},
        "model": model,
        "messages": messages,
        "stream": True,
        "temperature": call.sampling.temperature,
        row.max_tokens: answer_bound(call, place, context),
    }
    if not (row.omits_top_p and call.sampling.top_p == 1):
        body["top_p"] = call.sampling.top_p
    if system:
        body["system"] = system
    if form is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema(form)}}
    if (use := offered(call, row)) is not None:
        body["tools"] = [_tool(tool["function"]) for tool in use.tools]
        body["tool_choice"] = _choice(use)
    elif called := _called(messages):
        # It takes no conversation in which tools were called where none are told.
        body["tools"] = [_tool({"name": name}) for name in called]
        body["tool_choice"] = {"type": "none"}
    if call.thinking == "off":
        body |= row.no_thinking
    return body


def _tool(function: Mapping[str, Any]) -> dict[str, Any]:
    described = {"description": function["description"]} if "description" in function else {}
    return {"name": function["name"], **described, "input_schema": {"type": "object", **function.get("parameters", {})}}


def _choice(use: ToolUse) -> dict[str, Any]:
    if use.choice == "none":
        return {"type": "none"}
    kind = "any" if use.choice == "required" else "auto"
    chosen: dict[str, Any] = {"type": kind} if use.named is None else {"type": "tool", "name": use.named}
    return chosen if use.parallel is None else {**chosen, "disable_parallel_tool_use": not use.parallel}


def _called(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tools that were called, each once."""
    blocks = (block for message in messages for block in message["content"])
    return list(dict.fromkeys(block["name"] for block in blocks if block["type"] == "tool_use"))


def _fit(call_id: str) -> str:
    """A call's id with no characters that it does not take; other servers give any."""
    if _ID.fullmatch(call_id):
        return call_id
    return f"call_{hashlib.blake2b(call_id.encode(errors='replace'), digest_size=16).hexdigest()}"


def _number(event: Mapping[str, Any]) -> int:
    """Which block of the answer an event is about."""
    return figure(event.get("index")) or 0


def conversation(messages: Sequence[Message]) -> tuple[str, list[dict[str, Any]]]:
    """What the system says, apart, and the other messages: those of one role that follow each other are one.

    Raises:
        InvalidCallError: there is content that cannot be said in this shape.
    """
    system: list[str] = []
    others: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] in {"system", "developer"}:
            system += [block["text"] for block in _blocks(message.get("content")) if block["type"] == "text"]
            continue
        role = "assistant" if message["role"] == "assistant" else "user"
        if others and others[-1]["role"] == role:
            others[-1]["content"] += _said(message)
        else:
            others.append({"role": role, "content": _said(message)})
    return "\n\n".join(system), [message for message in others if message["content"]]


def _said(message: Message) -> list[dict[str, Any]]:
    """A message's blocks: what a tool has answered is one, what the model asked of tools are some more."""
    blocks = _blocks(message.get("content"))
    if message["role"] == "tool":
        return [{"type": "tool_result", "tool_use_id": _fit(message.get("tool_call_id", "")), "content": blocks}]
    calls = message.get("tool_calls") or ()
    return blocks + [
        {
            "type": "tool_use",
            "id": _fit(call["id"]),
            "name": _NOT_IN_NAMES.sub("_", call["function"]["name"]),
            "input": arguments(call["function"]["arguments"]),
        }
        for call in calls
    ]


def _blocks(content: object) -> list[dict[str, Any]]:
    """Content as blocks; it takes no empty texts."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    parts = content if isinstance(content, list) else []
    return [_block(part) for part in parts if part.get("type") != "text" or part.get("text")]


def _block(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    head, data = data_uri(part)
    kind = head.removeprefix("data:").removesuffix(";base64")
    if kind not in _IMAGES or not head.endswith(";base64"):
        raise InvalidCallError("An image must be a data URI in base64, of a JPEG, PNG, GIF or WebP.")
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}
