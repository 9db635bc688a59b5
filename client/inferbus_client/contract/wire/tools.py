"""Tools: what a model may call, as OpenAI's chat completions have it, and what the tools have answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from inferbus_client.contract.wire.closed import Closed
from inferbus_client.contract.wire.messages import (
    MAX_TOOL_CALLS,
    FunctionName,
    Id,
    Words,
    bounded,
    text_of,
)
from inferbus_client.contract.wire.schemas import SchemaError, check_tools

#: That a request may offer.
MAX_TOOLS: Final = 128
#: Characters of what a tool is for.
MAX_DESCRIPTION: Final = 4096


class Function(Closed):
    """A function that a model may call, and what with: a JSON Schema of an object."""

    name: FunctionName
    description: Annotated[str, Field(max_length=MAX_DESCRIPTION)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @field_validator("parameters")
    @classmethod
    def _are_of_an_object(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value and value.get("type", "object") != "object":
            raise PydanticCustomError("parameters", "must be a schema of type object")
        return value


class Tool(Closed):
    """One of the tools that a request offers."""

    type: Literal["function"]
    function: Function


class NamedFunction(Closed):
    name: FunctionName


class NamedTool(Closed):
    """The tool that has to be called."""

    type: Literal["function"]
    function: NamedFunction


class ToolResult(Closed):
    """What a tool has answered to one of the calls of the session's last turn."""

    model_config = ConfigDict(alias_generator=to_camel)

    tool_call_id: Id
    content: Words

    @property
    def text(self) -> str:
        return text_of(self.content)

    def as_openai(self) -> dict[str, Any]:
        """As a message of role `tool`."""
        return {"role": "tool", **self.model_dump(exclude_none=True)}


def _within_bounds(tools: list[Tool]) -> list[Tool]:
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise PydanticCustomError("twice", "has a name twice")
    try:
        check_tools(tool.function.parameters for tool in tools if tool.function.parameters is not None)
    except SchemaError as error:
        raise PydanticCustomError("tools", "{text}", {"text": str(error)}) from None
    return tools


def _once_each(results: list[ToolResult]) -> list[ToolResult]:
    if len({result.tool_call_id for result in results}) < len(results):
        raise PydanticCustomError("twice", "answers a call twice")
    return results


#: What a request offers. The first fault is the one that is told, as in a conversation.
Tools = Annotated[
    list[Tool],
    Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True),
    AfterValidator(_within_bounds),
    BeforeValidator(bounded),
]
#: Whether the model may, may not or has to call, or which tool.
ToolChoice = Literal["auto", "none", "required"] | NamedTool
#: The answers to all the calls of a turn.
ToolResults = Annotated[
    list[ToolResult],
    Field(min_length=1, max_length=MAX_TOOL_CALLS, fail_fast=True),
    AfterValidator(_once_each),
    BeforeValidator(bounded),
]


def check_choice(tools: Sequence[Tool] | None, choice: ToolChoice | None, parallel: bool | None) -> None:  # noqa: FBT001 - its key's value
    """Refuse a choice among what is not offered; for validators."""
    if tools is None:
        given = "toolChoice" if choice is not None else "parallelToolCalls" if parallel is not None else None
        if given is not None:
            raise PydanticCustomError("needs_tools", "needs tools", {"where": given})
    elif isinstance(choice, NamedTool) and all(tool.function.name != choice.function.name for tool in tools):
        raise PydanticCustomError("unknown_tool", "names none of the tools", {"where": "toolChoice"})


def needs_grammar(tools: Sequence[Tool], choice: ToolChoice | None) -> bool:
    """Whether an engine has to compile the tools' parameters: where it must call, or keep to them strictly."""
    if choice == "none":
        return False
    return choice == "required" or isinstance(choice, NamedTool) or any(tool.function.strict for tool in tools)
