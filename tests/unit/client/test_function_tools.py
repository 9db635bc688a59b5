"""Plain functions as tools: which ones can be, what a model is told of them, and what becomes of what they give."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from inferbus_client import OptionTypeError, ToolError
from inferbus_client.contract.wire.messages import ToolCall
from inferbus_client.contract.wire.tools import Tool
from inferbus_client.exchange.answer import Answer
from inferbus_client.exchange.tools import FunctionTool, ToolRun, of_tools
from inferbus_client.own_thread import in_own_thread


class Place(BaseModel):
    name: str


@dataclass
class Spot:
    x: int
    y: int = 0


class Robot:
    def go(self, to: Place, speed: Literal["slow", "fast"] = "slow") -> str:
        """Go somewhere."""
        return f"{to.name} {speed}"

    @classmethod
    def stop(cls, spot: Spot | None = None) -> Spot | None:
        return spot


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **named: Any) -> Any:
        return function(*args, **named)

    return wrapper


@traced
def wrapped(a: Annotated[int, Field(description="a number")]) -> int:
    return a


def in_words(a: "int", b: "list[Place]" = []) -> tuple[int, int]:  # noqa: B006, UP037 - as people write them
    return a, len(b)


def of_any(a: Any = None, *, b: Any = 2) -> tuple[Any, Any]:
    return a, b


@pytest.mark.parametrize(
    ("function", "arguments", "given"),
    [
        (Robot().go, '{"to": {"name": "x"}}', "x slow"),
        (Robot.stop, '{"spot": {"x": 1}}', Spot(1)),
        (Robot.stop, "{}", None),
        (wrapped, '{"a": 1}', 1),
        (in_words, '{"a": 1, "b": [{"name": "x"}]}', (1, 1)),
        (of_any, '{"b": [1]}', (None, [1])),
    ],
)
def test_functions_of_every_kind_are_called_with_their_types(
    function: Callable[..., Any], arguments: str, given: Any
) -> None:
    assert FunctionTool(function).call(arguments) == given


@pytest.mark.parametrize("function", [Robot().go, Robot.stop, wrapped, in_words, of_any])
def test_what_is_told_of_them_a_worker_takes(function: Callable[..., Any]) -> None:
    Tool.model_validate(FunctionTool(function).definition)


@pytest.mark.parametrize("function", [Robot().go, wrapped, in_words])
@pytest.mark.parametrize(
    "arguments", ["", "[]", "7", "{", '{"nobody": 1}', '{"a": "x", "to": 7}', '{"a": ' + "[" * 999]
)
def test_arguments_that_do_not_fit_are_for_the_model_to_read(function: Callable[..., Any], arguments: str) -> None:
    with pytest.raises(ToolError):
        FunctionTool(function).call(arguments)


def test_what_a_function_checks_itself_is_its_callers() -> None:
    def checks(a: str) -> Place:
        return Place.model_validate({"name": [a]})

    with pytest.raises(ValidationError, match="Place"):
        FunctionTool(checks).call('{"a": "x"}')


def of_unknown(a: "Unknown") -> None:  # type: ignore[name-defined]  # noqa: F821, UP037
    ...


def of_callable(a: Callable[[], None]) -> None: ...


def positional(a: int, /) -> None: ...


def many(*a: int) -> None: ...


def renamed(*_args: Any) -> None: ...


renamed.__signature__ = inspect.signature(wrapped)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "function",
    [Robot(), functools.partial(wrapped, 1), 7, None, max, len, of_unknown, of_callable, positional, many, renamed],
)
def test_what_cannot_be_told_to_a_model_is_refused_in_words(function: Any) -> None:
    with pytest.raises(OptionTypeError, match="tools: "):
        FunctionTool(function)


@pytest.mark.parametrize("tools", [wrapped, 7, "x", {"type": "function"}])
def test_tools_are_a_list(tools: Any) -> None:
    with pytest.raises(OptionTypeError, match="tools must be a list"):
        of_tools({"tools": tools})
    with pytest.raises(OptionTypeError, match="tools must be a list"):
        ToolRun("x", None, {"tools": tools}, 1)


def test_or_whatever_else_has_them_one_after_the_other() -> None:
    run = ToolRun("x", None, {"tools": (one for one in [wrapped])}, 1)  # type: ignore[typeddict-item]
    assert [tool["function"]["name"] for tool in run.options["tools"] or ()] == ["wrapped"]  # type: ignore[index]


def asked_on(result: Any) -> ToolRun:
    """A run whose one call has given this."""
    run = ToolRun("x", None, {"tools": [wrapped]}, 1)
    call = ToolCall.model_validate({"id": "a", "type": "function", "function": {"name": "wrapped", "arguments": "{}"}})
    run.go_on(Answer("", session_id="s", request_id="r", tool_calls=(call,)), {"a": result})
    return run


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ("text", "text"),
        (None, "null"),
        (Spot(1), '{"x":1,"y":0}'),
        (Place(name="x"), '{"name":"x"}'),
        ("a\udcff", "a?"),
    ],
)
def test_what_a_tool_gives_is_told_in_text(result: Any, told: str) -> None:
    """Also the name of a file that is no UTF-8: a worker takes no half characters."""
    assert asked_on(result).options["tool_results"] == {"a": told}


def test_a_run_stays_in_the_session_that_it_began_in() -> None:
    assert asked_on("x").options["session"] == "s"


def test_what_no_future_takes_is_raised_all_the_same() -> None:
    """`next` of nothing, in a tool of an `AsyncClient`: nobody would ever have heard of it."""

    def ends() -> None:
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(asyncio.wait_for(in_own_thread(ends, "tool"), 5))
