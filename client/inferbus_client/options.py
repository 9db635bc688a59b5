"""The options of one request, said once for `ask` and `stream` of both clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Literal, TypedDict

from inferbus_client.errors import RequestFailedError, SessionBusyError
from inferbus_client.exchange import Terms
from inferbus_client.steps import Pause, Step
from inferbus_client.wire import Accepted, Failure

WhenBusy = Literal["wait", "raise"]


class AskOptions(TypedDict, total=False):
    """Options of one request. What is left out, the client's settings or the worker's project decide.

    Keys:
        session: the conversation; the client's own where none is named.
        temperature, top_p, max_tokens: sampling; a temperature of 0 is greedy, the other two are more than 0.
        system_prompt: replaces the project's prompt in this session from now on.
        params: more sampling parameters by their OpenAI names (`stop`, `seed`, `top_k`, …).
        timeout: seconds until the answer must be complete, retries and waiting for the session included.
        retries: how often to try again what may succeed later.
        when_busy: whether a request waits while this client has another one in flight in the session, or raises
            `SessionBusyError` at once.
        on_accepted: called with the worker's `accepted` (place in the queue, estimate of the wait), where the
            caller waits.
        on_retry: called with a refusal and the seconds after which the request is sent again.
        request_id: an id of the caller's own. Give each request another one: the worker answers a repeat with the
            first answer.
    """

    session: str | None
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    system_prompt: str | None
    params: Mapping[str, Any] | None
    timeout: float | None
    retries: int | None
    when_busy: WhenBusy
    on_accepted: Callable[[Accepted], None] | None
    on_retry: Callable[[RequestFailedError, float], None] | None
    request_id: str | None


REQUEST_FIELDS: Final = frozenset({"temperature", "top_p", "max_tokens", "system_prompt", "params", "request_id"})


def request_fields(options: AskOptions) -> dict[str, Any]:
    """The options that travel."""
    return {name: value for name, value in options.items() if name in REQUEST_FIELDS}


def terms_of(options: AskOptions, terms: Terms) -> Terms:
    """The client's terms with this request's changes."""
    changes = {name: options.get(name) for name in ("timeout", "retries")}
    return replace(terms, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]


def announce(step: Step, options: AskOptions) -> None:
    """Tell the caller of a step, where the options name a callback for it."""
    if isinstance(step, Accepted) and (on_accepted := options.get("on_accepted")) is not None:
        on_accepted(step)
    elif isinstance(step, Pause) and step.because is not None and (on_retry := options.get("on_retry")) is not None:
        on_retry(step.because, step.seconds)


def session_busy() -> SessionBusyError:
    return SessionBusyError(Failure("session_busy", "This client has a request in flight in that session."))
