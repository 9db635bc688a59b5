"""Plain Python functions as tools: what a model is told of them, and what they answer to its calls."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError, to_json

from inferbus_client.contract.wire.messages import FunctionName, ToolCall
from inferbus_client.contract.wire.tools import MAX_DESCRIPTION
from inferbus_client.errors import OptionTypeError, OptionValueError, ToolError, ToolRoundsError
from inferbus_client.exchange.answer import Answer
from inferbus_client.exchange.call import Content, Messages
from inferbus_client.exchange.options import AskOptions, check_options
from inferbus_client.wording import wording

_Kind = inspect.Parameter
_NAME: Final[TypeAdapter[str]] = TypeAdapter(FunctionName)
_CHOICES: Final = frozenset({"auto", "none", "required"})
#: Parameters that an object of arguments cannot fill.
_NOT_BY_NAME: Final = frozenset({_Kind.POSITIONAL_ONLY, _Kind.VAR_POSITIONAL, _Kind.VAR_KEYWORD})


#: How often a model may call before it has to answer.
MAX_TOOL_ROUNDS: Final = 8


class _Untitled(GenerateJsonSchema):
    """Without the titles that say a parameter's name again: a model reads them each time."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


class FunctionTool:
    """A function that a model may call.

    Attributes:
        name: the function's.
        definition: what the model is told, in OpenAI's shape: the name, the docstring, and the parameters with their
            types, as a JSON Schema that pydantic makes of the signature. `Annotated[int, Field(description=…)]` says
            more of one.
        is_asynchronous: whether what it gives has to be awaited.

    Raises:
        OptionTypeError: its parameters cannot be given by name, or have no JSON.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = getattr(function, "__name__", "")
        if not inspect.isroutine(function):
            raise OptionTypeError(f"tools: {function!r} is neither a function nor a tool's definition", "tools")
        try:
            _NAME.validate_python(self.name)
        except ValidationError:
            words = f"tools: {self.name!r} is no name for a tool: letters, digits and _.:/- alone"
            raise OptionTypeError(words, "tools") from None
        try:
            parameters = inspect.signature(function).parameters.values()
        except ValueError as error:
            raise OptionTypeError(f"tools: {self.name}: {error}", "tools") from None
        if wrong := next((one.name for one in parameters if one.kind in _NOT_BY_NAME), None):
            raise OptionTypeError(f"tools: {self.name}: {wrong} cannot be given by name", "tools")
        try:
            self._adapter = _adapter_of(function)
            schema = self._adapter.json_schema(schema_generator=_Untitled)
        except (PydanticUserError, NameError, LookupError, TypeError, ValueError) as error:
            text = str(error).partition("\n")[0]
            raise OptionTypeError(f"tools: {self.name}: its types cannot be told to a model: {text}", "tools") from None
        self.is_asynchronous = inspect.iscoroutinefunction(function)
        said = (inspect.getdoc(function) or "")[:MAX_DESCRIPTION]
        self.definition: dict[str, Any] = {
            "type": "function",
            "function": {"name": self.name, **({"description": said} if said else {}), "parameters": schema},
        }

    def call(self, arguments: str) -> Any:
        """What the function gives for arguments in JSON; of one that is asynchronous, what is to be awaited.

        Raises:
            ToolError: they are not what its signature asks for.
        """
        if not arguments.lstrip().startswith("{"):
            raise ToolError("the arguments must be a JSON object")
        try:
            return self._adapter.validate_json(arguments)
        except ValidationError as error:
            if error.title != f"call[{self.name}]":  # the function's own
                raise
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ToolError(f"{where}: {wording(first)}" if where else wording(first)) from None


def _adapter_of(function: Callable[..., Any]) -> TypeAdapter[Any]:
    """What reads arguments for the function. Names of types are looked up where it was written.

    Left alone, pydantic looks for those of a method here.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(cast("Any", function), config=ConfigDict(defer_build=True))
    written = inspect.unwrap(getattr(function, "__func__", function))
    adapter.rebuild(_types_namespace=getattr(written, "__globals__", {}))
    return adapter


def _listed(tools: object) -> list[Any]:
    """The tools that an option names.

    Raises:
        OptionTypeError: it is no list of any.
    """
    if isinstance(tools, Mapping | str) or not isinstance(tools, Iterable):
        raise OptionTypeError("tools must be a list", "tools")
    return list(tools)


def of_tools(options: AskOptions) -> dict[str, Any]:
    """Of a request's options, those that are about tools, as they travel. A tool's definition stays as it is.

    Raises:
        OptionTypeError: a tool is neither a function nor a definition, or the results are not by their calls' ids.
    """
    tools, choice, results = (options.get(name) for name in ("tools", "tool_choice", "tool_results"))
    fields: dict[str, Any] = {}
    if tools is not None:
        fields["tools"] = [
            tool if isinstance(tool, Mapping) else FunctionTool(tool).definition for tool in _listed(tools)
        ]
    if isinstance(choice, str) and choice not in _CHOICES:
        fields["tool_choice"] = {"type": "function", "function": {"name": choice}}
    if results is not None:
        if not isinstance(results, Mapping):
            raise OptionTypeError("tool_results must be a mapping, by the calls' ids", "tool_results")
        fields["tool_results"] = [{"toolCallId": name, "content": content} for name, content in results.items()]
    return fields


class ToolRun:
    """A request whose tools are run until there is an answer. The waiting is its caller's.

    Attributes:
        message: what is asked now; None where it is `messages`, or results.
        messages: the same, as a whole conversation.
        options: of the request that is to be sent now.

    Args:
        message: what is asked at first.
        messages: the same, as a whole conversation.
        options: the caller's.
        most: how many answers may call tools before there has to be one that does not.
        awaits: whether tools may be asynchronous.

    Raises:
        OptionTypeError: there are no tools to run, one is not a function, or there is no such option.
        OptionValueError: `most` is no number of rounds.
    """

    def __init__(
        self,
        message: Content | None,
        messages: Messages | None,
        options: AskOptions,
        most: int,
        *,
        awaits: bool = False,
    ) -> None:
        check_options(options, AskOptions.__annotations__)
        tools = _listed(options.get("tools") or ())
        if not tools:
            raise OptionTypeError("run_tools: there are no tools to run: tools=[function, …]", "tools")
        functions = [FunctionTool(tool) for tool in tools if not isinstance(tool, Mapping)]
        if len(functions) < len(tools):
            raise OptionTypeError("run_tools: tools must be functions", "tools")
        if not awaits and (late := next((tool.name for tool in functions if tool.is_asynchronous), None)):
            raise OptionTypeError(f"tools: {late} is asynchronous, which is for an AsyncClient", "tools")
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise OptionValueError("max_tool_rounds: must be a whole number, at least 1", "max_tool_rounds")
        self.message = message
        self.messages = messages
        self.options: AskOptions = {**options, "tools": [tool.definition for tool in functions]}
        self._functions = {tool.name: tool for tool in functions}
        self._most = most
        self._rounds = 0

    def calls(self, answer: Answer) -> Sequence[ToolCall]:
        """What an answer calls; nothing, where it is the last one.

        Raises:
            ToolRoundsError: it calls on, after as many rounds as may be.
        """
        if not answer.tool_calls:
            return ()
        if self._rounds == self._most:
            raise ToolRoundsError(answer.tool_calls, self._most)
        self._rounds += 1
        return answer.tool_calls

    def run(self, call: ToolCall) -> Any:
        """What the called function gives; what went wrong with the call itself is for the model to read.

        Raises:
            Exception: what the function raises, unless it is a `ToolError`.
        """
        function = self._functions.get(call.function.name)
        if function is None:
            return f"Error: there is no tool {call.function.name}."
        try:
            return function.call(call.function.arguments)
        except ToolError as error:
            return _told(error)

    def go_on(self, answer: Answer, results: Mapping[str, Any]) -> None:
        """Ask on with what the tools have given, by the calls' ids."""
        called = {call.id: call.function.name for call in answer.tool_calls}
        contents = {call_id: _content(result, called[call_id]) for call_id, result in results.items()}
        # The session is where it began, whatever the client's own has become meanwhile.
        options: AskOptions = {**self.options, "request_id": None, "session": answer.session_id}
        # A call that was forced has been made; forced again, there would never be an answer.
        options["tool_choice"] = None
        if self.messages is None:
            self.message, options["tool_results"] = None, contents
        else:
            calls = [call.model_dump() for call in answer.tool_calls]
            said = {"role": "assistant", "content": answer.text, "tool_calls": calls}
            given = [{"role": "tool", "tool_call_id": name, "content": text} for name, text in contents.items()]
            self.messages = [*self.messages, said, *given]
        self.options = options


async def awaited(result: Awaitable[Any]) -> Any:
    """What an asynchronous tool gives in the end; see `ToolRun.run`."""
    try:
        return await result
    except ToolError as error:
        return _told(error)


def _told(error: ToolError) -> str:
    return f"Error: {error}"


def _content(result: Any, name: str) -> str:
    """What a tool of this name gives, in words: a text as it is, but for half characters, anything else in JSON."""
    if isinstance(result, str):
        return result.encode(errors="replace").decode()
    try:
        return to_json(result).decode()
    except PydanticSerializationError as error:
        raise OptionTypeError(
            f"tools: what {name} gives must be a text, or have a form in JSON: {error}", "tools"
        ) from None
