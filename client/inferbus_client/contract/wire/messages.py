"""What a conversation is made of, in OpenAI's shapes: content parts, tool calls, and messages by their roles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError, from_json

from inferbus_client.contract.wire.closed import Closed

#: Of a conversation.
MAX_MESSAGES: Final = 1000
#: Of a conversation: keys and entries of lists. Each costs far more memory, or time to refuse it, than it has bytes.
MAX_VALUES: Final = 20_000
#: Of one message.
MAX_PARTS: Final = 64
MAX_TOOL_CALLS: Final = 128
#: Characters of one tool call's arguments.
MAX_ARGUMENTS: Final = 65536

#: What engines may write into their logs: no more than a name.
FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]{1,128}$")]
Id = Annotated[str, Field(min_length=1, max_length=256)]


class TextPart(Closed):
    """A piece of text in a message of several parts (OpenAI's content part)."""

    type: Literal["text"]
    text: str


class ImageUrl(Closed):
    url: Annotated[str, Field(pattern=r"^data:image/[a-z0-9.+-]+;base64,")]
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Closed):
    """An image, as a data URI: the worker never fetches anything."""

    type: Literal["image_url"]
    image_url: ImageUrl


ContentPart = Annotated[TextPart | ImagePart, Field(discriminator="type")]

#: What a user says.
Content = (
    Annotated[str, Field(min_length=1)]
    | Annotated[list[ContentPart], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)]
)
#: What everybody else says.
Words = str | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)]


class CalledFunction(Closed):
    """Which function a model has called, and what with."""

    name: FunctionName
    arguments: Annotated[str, Field(max_length=MAX_ARGUMENTS)]

    @field_validator("arguments")
    @classmethod
    def _can_be_read(cls, value: str) -> str:
        """A model may write what is no JSON, and its conversation has to go on; but engines read what is some."""
        try:
            from_json(value)
        except ValueError as error:
            if "recursion limit" in str(error):
                raise PydanticCustomError("arguments", "nest too deep") from None
        return value


class ToolCall(Closed):
    """A call that a model has made in its answer."""

    id: Id
    type: Literal["function"]
    function: CalledFunction


class Message(Closed):
    """One message of a conversation."""

    content: Any

    @property
    def text(self) -> str:
        """What it says, without its images."""
        return text_of(self.content)

    @property
    def image_count(self) -> int:
        return images_in(self.content)

    def as_openai(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class SystemMessage(Message):
    role: Literal["system"]
    content: Words


class UserMessage(Message):
    role: Literal["user"]
    content: Content

    @model_validator(mode="after")
    def _is_not_blank(self) -> Self:
        check_not_blank(self.content)
        return self


class AssistantMessage(Message):
    role: Literal["assistant"]
    content: Words | None = None
    tool_calls: Annotated[list[ToolCall], Field(min_length=1, max_length=MAX_TOOL_CALLS, fail_fast=True)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and self.tool_calls is None:
            raise PydanticCustomError("says_nothing", "must have content or tool_calls")
        return self

    @property
    def text(self) -> str:
        """What it says and, as a template writes them, its calls."""
        called = (word for call in self.tool_calls or () for word in (call.function.name, call.function.arguments))
        return "\n".join([text_of(self.content), *called])


class ToolMessage(Message):
    role: Literal["tool"]
    content: Words
    tool_call_id: Id


def text_of(content: Content | Words | None) -> str:
    """The words of a content, without its images."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content if isinstance(part, TextPart))


def images_in(content: Content | Words | None) -> int:
    return sum(isinstance(part, ImagePart) for part in content) if isinstance(content, list) else 0


def check_not_blank(content: Content) -> None:
    """Refuse a message that asks nothing; for validators."""
    if not text_of(content).strip() and not images_in(content):
        raise PydanticCustomError("blank", "the message is blank")


def bounded(value: object) -> object:
    """Refuse what holds too much before anything is made of it, in time that the bound decides; for validators."""
    if holds_more_than(MAX_VALUES, value):
        raise PydanticCustomError("too_many_values", "must hold at most {most} values", {"most": MAX_VALUES})
    return value


def holds_more_than(most: int, value: object) -> bool:
    """Whether there are more values in a value, at whatever depth; in time that the bound decides."""
    waiting, count = [value], 0
    while waiting:
        each = waiting.pop()
        held = list(each.values()) if isinstance(each, Mapping) else each if isinstance(each, list | tuple) else ()
        count += len(held)
        if count > most:
            return True
        waiting.extend(held)
    return False


#: A whole conversation. Its first fault is the one that is told: a stranger may make as many as he likes.
Messages = Annotated[
    list[Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]],
    Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True),
    BeforeValidator(bounded),
]
