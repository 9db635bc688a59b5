"""The body of Anthropic's Messages API, as far as we can do what it asks.

https://platform.claude.com/docs/en/api/messages/create has the names. Whatever the wire would refuse of a conversation
is refused here: there its messages have other numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError, from_json, to_json

from inferbus_client.contract.wire.closed import Closed
from inferbus_client.contract.wire.messages import (
    MAX_ARGUMENTS,
    MAX_MESSAGES,
    MAX_PARTS,
    MAX_TOOL_CALLS,
    FunctionName,
    Id,
    bounded,
)

#: More keys than any object of the body has, null or not.
_MANY_KEYS: Final = 64


def _is_object(value: object) -> object:
    if not isinstance(value, dict):
        raise PydanticCustomError("dict_type", "must be an object")
    return value


#: An object that nobody has to look into here, and pydantic would copy: a stranger's may have a million keys.
_Object = Annotated[Any, BeforeValidator(_is_object)]
#: A hint or a label: it changes no answer.
_Ignored = _Object | None


class _Part(Closed):
    """An object of the body. What is null in it has not been said."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_says_nothing(cls, value: Any) -> Any:
        if not isinstance(value, dict) or len(value) > _MANY_KEYS:
            return value
        return {name: each for name, each in value.items() if each is not None}


class TextBlock(_Part):
    type: Literal["text"]
    text: str
    cache_control: _Ignored = None


class ImageSource(_Part):
    """An image that comes along: nobody here fetches anything."""

    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: Annotated[str, Field(min_length=1)]


class ImageBlock(_Part):
    type: Literal["image"]
    source: ImageSource
    cache_control: _Ignored = None


class Caller(_Part):
    """Who has called a tool: no program of Anthropic's, but the model itself."""

    type: Literal["direct"]


def _arguments(value: object) -> str:
    """What a tool was called with, as the text that other models write."""
    _is_object(value)
    try:
        written = to_json(value)
        from_json(written, allow_inf_nan=False)
    except ValueError:
        raise PydanticCustomError("arguments", "nests too deep, or cannot be written as JSON") from None
    return written.decode()


class ToolUseBlock(_Part):
    type: Literal["tool_use"]
    id: Id
    name: FunctionName
    arguments: Annotated[str, Field(alias="input", max_length=MAX_ARGUMENTS), BeforeValidator(_arguments)]
    caller: Caller | None = None
    cache_control: _Ignored = None


def _as_blocks(value: object) -> object:
    """Text is short for one block of it."""
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


Texts = Annotated[list[TextBlock], Field(max_length=MAX_PARTS, fail_fast=True), BeforeValidator(_as_blocks)]


class ToolResultBlock(_Part):
    """What a tool has answered, in words: engines take no images there."""

    type: Literal["tool_result"]
    tool_use_id: Id
    content: Annotated[Texts, Field(default_factory=list)]
    is_error: bool = False
    cache_control: _Ignored = None


class ThinkingBlock(_Part):
    """What a model has thought in a turn before.

    It may come back with its answer, as Anthropic asks its clients to send it, and is left out: the templates of models
    that think leave out the thoughts of earlier turns, and the contract has no place for them.
    """

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(_Part):
    """The same, where nobody but Anthropic can read it."""

    type: Literal["redacted_thinking"]
    data: str


def _at_most(most: int, blocks: Sequence[object], what: str) -> None:
    if len(blocks) > most:
        raise PydanticCustomError("too_many", "must have at most {most} {what}", {"most": most, "what": what})


def _asks(blocks: list[TextBlock | ImageBlock | ToolResultBlock]) -> list[TextBlock | ImageBlock | ToolResultBlock]:
    said = [block for block in blocks if not isinstance(block, ToolResultBlock)]
    _at_most(MAX_PARTS, said, "blocks besides the results of tools")
    if not blocks or (said and all(isinstance(block, TextBlock) and not block.text.strip() for block in said)):
        raise PydanticCustomError("blank", "must not be blank")
    return blocks


class UserMessage(_Part):
    role: Literal["user"]
    content: Annotated[
        list[Annotated[TextBlock | ImageBlock | ToolResultBlock, Field(discriminator="type")]],
        Field(max_length=MAX_PARTS + MAX_TOOL_CALLS, fail_fast=True),
        AfterValidator(_asks),
        BeforeValidator(_as_blocks),
    ]


_Spoken = TextBlock | ToolUseBlock | ThinkingBlock | RedactedThinkingBlock


def _can_be_told(blocks: list[_Spoken]) -> list[_Spoken]:
    _at_most(MAX_PARTS, [block for block in blocks if isinstance(block, TextBlock)], "texts")
    _at_most(MAX_TOOL_CALLS, [block for block in blocks if isinstance(block, ToolUseBlock)], "calls of tools")
    return blocks


class AssistantMessage(_Part):
    role: Literal["assistant"]
    content: Annotated[
        list[Annotated[_Spoken, Field(discriminator="type")]],
        Field(max_length=MAX_PARTS + MAX_TOOL_CALLS, fail_fast=True),
        AfterValidator(_can_be_told),
        BeforeValidator(_as_blocks),
    ]


class SystemMessage(_Part):
    role: Literal["system"]
    content: Texts


Message = UserMessage | AssistantMessage | SystemMessage


def _begins_no_answer(messages: list[Message]) -> list[Message]:
    """Anthropic's models go on from a last message of the assistant's; a chat template begins a new one."""
    if isinstance(messages[-1], AssistantMessage):
        raise PydanticCustomError("prefill", "the last one must not be the assistant's: prefill is not supported")
    return messages


class Tool(_Part):
    """A function of the caller's that the model may call; those that Anthropic runs itself have other types."""

    type: Literal["custom"] | None = None
    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None
    cache_control: _Ignored = None
    defer_loading: Literal[False] | None = None
    eager_input_streaming: Literal[False] | None = None
    allowed_callers: Annotated[list[Literal["direct"]], Field(fail_fast=True)] | None = None


class ToolChoice(_Part):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _names_a_tool(self) -> Self:
        if (self.name is not None) != (self.type == "tool"):
            raise PydanticCustomError("name", "must have a name where it is of type tool, and nowhere else")
        return self


class Thinking(_Part):
    type: Literal["disabled"]


class OutputFormat(_Part):
    type: Literal["json_schema"]
    form: Annotated[_Object, Field(alias="schema")]


class OutputConfig(_Part):
    format: OutputFormat | None = None


class Body(_Part):
    """What a request may say. The bounds of most numbers and texts are the wire's, which checks them too."""

    model: str
    max_tokens: int
    messages: Annotated[
        list[Annotated[Message, Field(discriminator="role")]],
        Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True),
        AfterValidator(_begins_no_answer),
        BeforeValidator(bounded),
    ]
    system: Texts | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: float | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    stop_sequences: Annotated[list[str], Field(fail_fast=True)] | None = None
    tools: Annotated[list[Tool], Field(fail_fast=True), BeforeValidator(bounded)] | None = None
    tool_choice: ToolChoice | None = None
    output_config: OutputConfig | None = None
    thinking: Thinking | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    metadata: _Ignored = None
    cache_control: _Ignored = None
