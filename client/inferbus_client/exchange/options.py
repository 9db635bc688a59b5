"""The options of one request, said once for the verbs of both clients, and checked before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal, TypedDict

from pydantic import TypeAdapter, ValidationError

from inferbus_client.contract.trace import TraceContext, read_trace
from inferbus_client.contract.wire import Accepted, Failure
from inferbus_client.errors import OptionTypeError, OptionValueError, RequestFailedError, SessionBusyError
from inferbus_client.exchange.steps import Retry
from inferbus_client.settings.client import ClientSettings, Terms

WhenBusy = Literal["wait", "raise"]
OnAccepted = Callable[[Accepted], None]


class WaitOptions(TypedDict, total=False):
    """How patiently to wait. What is left out, the client's settings decide.

    Keys:
        timeout: until when the answer must be complete, retries and waiting for the session included: seconds (1.5) or
            a duration ("90s", "5m"), at most a day.
        retries: how often to try again what may succeed later.
    """

    timeout: float | str | None
    retries: int | None


class TurnOptions(WaitOptions, total=False):
    """The same, and in which conversation.

    Keys:
        session: the conversation; the client's own where none is named.
        when_busy: whether a request waits while this client has another one in flight in the session, or raises
            `SessionBusyError` at once.
    """

    session: str | None
    when_busy: WhenBusy | None


class AskOptions(TurnOptions, total=False):
    """Options of one request. What is left out, the client's settings or the worker's project decide.

    Those of `TurnOptions` (`session`, `when_busy`, `timeout`, `retries`), and:

    Keys:
        temperature, top_p, max_tokens: sampling; a temperature of 0 is greedy, the other two are more than 0.
        system_prompt: replaces the project's prompt in this session from now on.
        project: another one than the client's.
        client_id: who asks, where that is not the client itself: what the worker's limits per client count.
        model: which of the project's models is to answer, by its name.
        tools: what the model may call: functions with types, whose signature and docstring it is told, or definitions
            in OpenAI's shape. The answer's `tool_calls` are its calls.
        tool_choice: `auto`, `none`, `required`, or the name of the tool that it has to call (OpenAI's
            object that names it, too).
        parallel_tool_calls: False: one call at most.
        tool_results: instead of a message, what the calls of the session's last answer gave, by their ids.
        params: more sampling parameters by their OpenAI names (`stop`, `seed`, `top_k`, …).
        on_accepted: called with the worker's `accepted` (place in the queue, estimate of the wait), where the
            caller waits; again with each worker of a group that begins the request anew.
        on_retry: called with a refusal and the seconds after which the request is sent again.
        request_id: an id of the caller's own. Give each request another one: the worker answers a repeat with the
            first answer.
        trace_headers: `traceparent`, and `tracestate` if there is one, as W3C's Trace Context has them: where the
            request stands in a trace. They travel as MQTT 5's user properties.
    """

    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    system_prompt: str | None
    project: str | None
    client_id: str | None
    model: str | None
    tools: Sequence[Callable[..., Any] | Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool | None
    tool_results: Mapping[str, str | Sequence[Mapping[str, Any]]] | None
    params: Mapping[str, Any] | None
    on_accepted: OnAccepted | None
    on_retry: Callable[[RequestFailedError, float], None] | None
    request_id: str | None
    trace_headers: Mapping[str, str] | None


REQUEST_FIELDS: Final = frozenset(
    {
        *("temperature", "top_p", "max_tokens", "system_prompt", "client_id", "model", "params", "request_id"),
        *("tools", "tool_choice", "parallel_tool_calls", "tool_results"),
    }
)


#: Arguments of `ask` that are no option of its requests.
_OF_ASK: Final = ("run_tools", "max_tool_rounds")


def _setting(name: str) -> TypeAdapter[Any]:
    """What checks an option as the setting of the same name is checked."""
    field = ClientSettings.model_fields[name]
    checked: Any = Annotated[field.annotation, field]
    return TypeAdapter(checked)


_VALUES: Final[Mapping[str, TypeAdapter[Any]]] = {
    "timeout": _setting("timeout"),
    "retries": _setting("retries"),
    "when_busy": TypeAdapter(WhenBusy),
    "session": TypeAdapter(str),
    "project": _setting("project"),
    "request_id": TypeAdapter(str),
}


def check_options(options: Mapping[str, object], known: Iterable[str]) -> None:
    """Refuse what would do nothing, or something else than is meant.

    Raises:
        OptionTypeError: there is no such option, or it is not callable where it must be.
        OptionValueError: it has no such value.
    """
    known = list(known)
    for name in options:
        if name not in known:
            raise OptionTypeError(f"there is no option {name!r}{_instead(name, known)}", name)
    for name in ("on_accepted", "on_retry"):
        if (callback := options.get(name)) is not None and not callable(callback):
            raise OptionTypeError(f"{name} must be callable", name)
    for name in ("when_busy", "session", "project", "request_id"):
        _checked(name, options.get(name))


def _instead(name: str, known: Sequence[str]) -> str:
    """What may have been meant by an option that is not there."""
    if name in _OF_ASK:
        return ": ask alone runs tools"
    if name in ClientSettings.model_fields:
        return f": it is the client's, Client({name}=…)"
    near = get_close_matches(name.lower(), [*known, *(_OF_ASK if "tools" in known else ())], n=1)
    return f"; did you mean {near[0]}?" if near else ""


def request_fields(options: AskOptions) -> dict[str, Any]:
    """The options that travel."""
    return {name: value for name, value in options.items() if name in REQUEST_FIELDS}


def trace_of(options: AskOptions) -> TraceContext | None:
    """Where the caller says that the request stands in a trace.

    Raises:
        OptionTypeError, OptionValueError: it would not be handed on as it is.
    """
    headers: object = options.get("trace_headers")
    if not headers:
        return None
    if not isinstance(headers, Mapping) or not all(isinstance(text, str) for pair in headers.items() for text in pair):
        raise OptionTypeError("trace_headers must be a mapping of header names to texts", "trace_headers")
    context = read_trace([(name.lower(), value) for name, value in headers.items()])
    if context is None or len(context.headers) != len(headers):
        why = "a traceparent, and perhaps a tracestate, as W3C's Trace Context has them, and nothing else"
        raise OptionValueError(f"trace_headers: must be {why}", "trace_headers")
    return context


def terms_of(options: WaitOptions, terms: Terms) -> Terms:
    """The client's terms with this request's changes.

    Raises:
        OptionValueError: a change cannot be meant; the text begins with its name.
    """
    changes = {name: _checked(name, options.get(name)) for name in ("timeout", "retries")}
    return replace(terms, **{name: value for name, value in changes.items() if value is not None})


def announce(step: Accepted | Retry, options: AskOptions) -> None:
    """Tell the caller of a step, where the options name a callback for it."""
    if isinstance(step, Retry):
        if (on_retry := options.get("on_retry")) is not None:
            on_retry(step.because, step.seconds)
    elif (on_accepted := options.get("on_accepted")) is not None:
        on_accepted(step)


def session_busy(detail: str) -> SessionBusyError:
    return SessionBusyError(Failure("session_busy", detail))


def _checked(name: str, value: object) -> Any:
    if value is None:
        return None
    try:
        return _VALUES[name].validate_python(value, strict=True)
    except ValidationError as error:
        text = error.errors(include_url=False, include_context=False)[0]["msg"].removeprefix("Value error, ")
        raise OptionValueError(f"{name}: {text[0].lower()}{text[1:]}", name) from None
