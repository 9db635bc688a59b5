"""Anthropic's request body as the options of `ask`; what we cannot do is refused by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from pydantic import ValidationError
from pydantic.alias_generators import to_snake

from inferbus_client.contract.wire import Failure
from inferbus_client.errors import InvalidRequestError
from inferbus_client.exchange.call import Messages
from inferbus_client.exchange.options import AskOptions
from inferbus_client.shapes.anthropic_body import (
    AssistantMessage,
    Body,
    ImageBlock,
    Message,
    SystemMessage,
    TextBlock,
    Tool,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)
from inferbus_client.shown import shown_in_line
from inferbus_client.wording import wording

#: Characters of a type that is not known here, and of the whole complaint.
_MAX_SHOWN: Final = 64
_MAX_DETAIL: Final = 300
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
#: What the wire calls our keys, and what Anthropic does.
_SPELLED: Final[Sequence[tuple[re.Pattern[str], str]]] = [
    (re.compile(r"^params\.stop\b"), "stop_sequences"),
    (re.compile(r"^params\.response_format\b"), "output_config.format"),
    (re.compile(r"^params\."), ""),
    (re.compile(r"^tools\.([0-9]+)\.function\.parameters\b"), r"tools.\1.input_schema"),
    (re.compile(r"^tools\.([0-9]+)\.function\b"), r"tools.\1"),
    (re.compile(r"^toolChoice(\.NamedTool)?(\.function)?\b"), "tool_choice"),
    (re.compile(r"^parallelToolCalls\b"), "tool_choice.disable_parallel_tool_use"),
]
_ON_THE_WIRE: Final = re.compile(r"^(maxTokens|topP)\b")


def asked_for(body: object) -> tuple[Messages, AskOptions]:
    """What a body asks, all but `stream`, which is for its caller to take out.

    Raises:
        InvalidRequestError: what we cannot do, by its name.
    """
    said = _read(body)
    messages = [] if said.system is None else list(_system(said.system))
    for message in said.messages:
        messages += _told(message)
    return messages, _options(said)


def spelled(detail: str) -> str:
    """What is wrong with a request, by Anthropic's names."""
    for pattern, name in _SPELLED:
        detail, found = pattern.subn(name, detail)
        if found:
            return detail
    return _ON_THE_WIRE.sub(lambda found: to_snake(found[1]), detail)


def _read(body: object) -> Body:
    if not isinstance(body, dict):
        raise InvalidRequestError(Failure("invalid_request", "body: must be an object."))
    try:
        return Body.model_validate(body)
    except ValidationError as error:
        raise InvalidRequestError(Failure("invalid_request", _what_is_wrong(error))) from None


def _what_is_wrong(error: ValidationError) -> str:
    """One clause for the requester: the first fault."""
    first = error.errors(include_url=False)[0]
    steps = first["loc"]
    if steps[:1] == ("messages",):
        # Besides names and numbers, pydantic tells by which role and type it has read a message and a block.
        steps = steps[:2] + steps[3:5] + steps[6:]
    what = wording(first)
    if first["type"] == "union_tag_invalid":
        what = _unsupported(first["ctx"]["discriminator"].strip("'"), first["ctx"]["tag"])
    elif first["type"] == "literal_error" and steps[-1] == "type" and isinstance(first["input"], str):
        steps, what = steps[:-1], _unsupported("type", first["input"])
    elif first["type"] == "extra_forbidden":
        what = "is not supported"
    where = ".".join(str(step)[:_MAX_DETAIL] for step in steps)
    return f"{shown_in_line(where)}: {what}."[:_MAX_DETAIL]


def _unsupported(name: str, said: str) -> str:
    return f"{name} {shown_in_line(said[:_MAX_SHOWN])} is not supported"


def _told(message: Message) -> Iterator[Mapping[str, Any]]:
    """A message as the wire's: what tools have answered are messages of their own, right behind the calls."""
    if isinstance(message, SystemMessage):
        yield from _system(message.content)
    elif isinstance(message, AssistantMessage):
        yield _answered(message)
    else:
        yield from _asked(message)


def _system(texts: Sequence[TextBlock]) -> Iterator[Mapping[str, Any]]:
    if words := _words([block.text for block in texts]):
        yield {"role": "system", "content": words}


def _asked(message: UserMessage) -> Iterator[Mapping[str, Any]]:
    yield from (_result(block) for block in message.content if isinstance(block, ToolResultBlock))
    said = [block for block in message.content if not isinstance(block, ToolResultBlock)]
    if any(isinstance(block, ImageBlock) for block in said):
        yield {"role": "user", "content": [_part(block) for block in said]}
    elif said:
        yield {"role": "user", "content": _words([block.text for block in said if isinstance(block, TextBlock)])}


def _answered(message: AssistantMessage) -> Mapping[str, Any]:
    words = _words([block.text for block in message.content if isinstance(block, TextBlock)])
    calls = [
        {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": block.arguments}}
        for block in message.content
        if isinstance(block, ToolUseBlock)
    ]
    return {"role": "assistant", "content": words, **({"tool_calls": calls} if calls else {})}


def _result(block: ToolResultBlock) -> Mapping[str, Any]:
    """A tool's answer. That it is an error has no key on the wire: it is said as our own tools say it."""
    texts = [text.text for text in block.content]
    if block.is_error:
        texts = [f"Error: {texts[0]}", *texts[1:]] if texts else ["Error"]
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": _words(texts)}


def _words(texts: Sequence[str]) -> str | list[Mapping[str, Any]]:
    """Texts as a message's content: most have one."""
    if len(texts) > 1:
        return [{"type": "text", "text": text} for text in texts]
    return texts[0] if texts else ""


def _part(block: TextBlock | ImageBlock) -> Mapping[str, Any]:
    if isinstance(block, TextBlock):
        return {"type": "text", "text": block.text}
    url = f"data:{block.source.media_type};base64,{block.source.data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _options(said: Body) -> AskOptions:
    params = {"stop": said.stop_sequences, "top_k": said.top_k, "response_format": _form(said)}
    options: dict[str, Any] = {
        "model": said.model,
        "max_tokens": said.max_tokens,
        "temperature": said.temperature,
        "top_p": said.top_p,
        "params": {name: value for name, value in params.items() if value is not None} or None,
        # A list of none offers what no list does.
        "tools": [_tool(tool) for tool in said.tools or ()] or None,
        **({} if said.tool_choice is None else _choice(said.tool_choice)),
    }
    return cast("AskOptions", {name: value for name, value in options.items() if value is not None})


def _form(said: Body) -> Mapping[str, Any] | None:
    if said.output_config is None or said.output_config.format is None:
        return None
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": said.output_config.format.form}}


def _tool(tool: Tool) -> Mapping[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.input_schema,
        "strict": tool.strict,
    }
    return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}


def _choice(choice: ToolChoice) -> Mapping[str, Any]:
    chosen = _CHOICES.get(choice.type, {"type": "function", "function": {"name": choice.name}})
    if choice.disable_parallel_tool_use is None:
        return {"tool_choice": chosen}
    return {"tool_choice": chosen, "parallel_tool_calls": not choice.disable_parallel_tool_use}
