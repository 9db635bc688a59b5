"""What a server's refusals and failures mean in our terms. Its words are a stranger's: bounded, and never obeyed."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final

from inferbus_client.shown import shown_in_line
from inferbus_worker.engines.base import (
    BackendError,
    BackendFault,
    ContextTooLongError,
    EngineError,
    InvalidCallError,
)
from inferbus_worker.engines.remote.place import RemotePlace

_LONGEST_REASON: Final = 300
#: Names of models in one sentence.
_NAMED: Final = 10
#: Seconds; whoever wants to be left alone for longer is asked again all the same.
_LONGEST_PAUSE: Final = 3600.0
_REQUESTERS_FAULT: Final = frozenset({400, 413, 422})
_NOT_FOUND: Final = 404
_OPERATORS_FAULT: Final = frozenset({401, 403, _NOT_FOUND, 405})
_PAYMENT_REQUIRED, _TIMEOUT, _TOO_MANY, _UNAVAILABLE, _OVERLOADED = 402, 408, 429, 503, 529
#: TGI's word for a generation that failed.
_FAILED_DEPENDENCY: Final = 424
_SERVER_ERRORS: Final = 500
#: How the servers say that a prompt is too long: vLLM and OpenAI, llama.cpp, Anthropic, TGI, TabbyAPI, Ollama.
_TOO_LONG: Final = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|available context size|prompt is too long"
    r"|longer than the maximum model length|must have less than \d+ tokens|`inputs` tokens \+ `max_new_tokens`"
    r"|greater than (?:the )?max_seq_len|exceeds? (?:the |maximum )?context (?:length|window)"
    r"|input length exceeds|input length and `max_tokens` exceed|parameter=input_t",
    re.IGNORECASE,
)
#: And that no later try will do: a month's money is spent.
_SPENT: Final = re.compile(
    r"insufficient_quota|billing_hard_limit|billing_error|credit balance is too low|exceeded your current quota"
    r"|spend(?:ing)?[ _]limit",
    re.IGNORECASE,
)
#: Kinds of errors that come in a stream that began well, by their names; numbers speak for themselves.
_STATUS_OF_KIND: Final[Mapping[str, int]] = {
    "overloaded_error": _OVERLOADED,
    "rate_limit_error": _TOO_MANY,
    "rate_limit_exceeded": _TOO_MANY,
    "insufficient_quota": _TOO_MANY,
    "overloaded": _TOO_MANY,
    "invalid_request_error": 400,
    "validation": 422,
    "badrequesterror": 400,
    "exceed_context_size_error": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "billing_error": _PAYMENT_REQUIRED,
    "timeout_error": _TIMEOUT,
    "unavailable_error": _UNAVAILABLE,
    "serviceunavailableerror": _UNAVAILABLE,
}


def refusal(
    place: RemotePlace, status: int, headers: Mapping[str, str], body: object, known: Sequence[str] = ()
) -> EngineError:
    """Our error for an HTTP status and what came with it, of a server that has the models `known`."""
    words, kinds = _said(body)
    everything = " ".join([*kinds, words])
    if _SPENT.search(everything) or status == _PAYMENT_REQUIRED:
        return BackendError(f"{_who(place)} has no money left for us (status {status})", "429", may_retry=False)
    if status in _REQUESTERS_FAULT:
        if _TOO_LONG.search(everything):
            return ContextTooLongError(f"{_who(place)} says that the prompt is too long")
        return InvalidCallError(_for_requester(place, words) or "The model's server refuses this request.")
    if status in _OPERATORS_FAULT or (status < _SERVER_ERRORS and status not in _PASSING):
        has = f" It has: {listed(known)}" if status == _NOT_FOUND and known else ""
        return EngineError(f"{_who(place)} answered {status}{_REMEDIES.get(status, '')}{has}")
    return BackendError(
        f"{_who(place)} failed: status {status}",
        _PASSING.get(status, "5xx"),
        retry_after=retry_after(headers),
        may_retry=headers.get("x-should-retry", "").strip().lower() != "false",
    )


_PASSING: Final[Mapping[int, BackendFault]] = {
    _TIMEOUT: "timeout",
    _FAILED_DEPENDENCY: "5xx",
    409: "5xx",
    425: "5xx",
    _TOO_MANY: "429",
    _UNAVAILABLE: "503",
    504: "timeout",
    _OVERLOADED: "529",
}
_REMEDIES: Final[Mapping[int, str]] = {
    401: ": its key is missing or wrong (api_key_env, api_key_file)",
    403: ": the key may not use this model",
    _NOT_FOUND: ": is the model's name right (model), and the path in url?",
} | dict.fromkeys((301, 302, 303, 307, 308), ": it leads elsewhere, and our key goes nowhere else")


def in_stream(place: RemotePlace, body: object, headers: Mapping[str, str], known: Sequence[str] = ()) -> EngineError:
    """Our error for an error object in a stream that began with status 200."""
    _, kinds = _said(body)
    for kind in kinds:
        status = int(kind) if kind.isdecimal() and len(kind) == len("500") else _STATUS_OF_KIND.get(kind.lower())
        if status is not None and status >= min(_REQUESTERS_FAULT):
            return refusal(place, status, headers, body, known)
    return refusal(place, _SERVER_ERRORS, headers, body)


def broken(place: RemotePlace, error: BaseException, *, has_begun: bool) -> EngineError:
    """Our error for a connection or an answer that broke."""
    import httpx2  # noqa: PLC0415

    for cause in _causes(error):
        if isinstance(cause, EngineError):
            return cause
        if isinstance(cause, httpx2.TimeoutException):
            return BackendError(f"{_who(place)} does not answer ({type(cause).__name__})", "timeout")
        if isinstance(cause, httpx2.TransportError):
            fault: BackendFault = "cut" if has_begun else "connection"
            return BackendError(f"{_who(place)}: the connection broke ({type(cause).__name__})", fault)
    if isinstance(error, ValueError | LookupError | TypeError | AttributeError | RecursionError):
        return BackendError(f"{_who(place)} sends what is no chat completion ({type(error).__name__})", "cut")
    return BackendError(f"{_who(place)}: {type(error).__name__}", "connection")


def cut(place: RemotePlace) -> BackendError:
    """The answer ended without saying that it has."""
    return BackendError(f"{_who(place)} cut the answer off", "cut")


def listed(names: Sequence[str]) -> str:
    """The names of a server's models in a sentence: a stranger's words, and any number of them."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(shown_in_line, names[:_NAMED])) + more


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to be left alone for: in milliseconds, in seconds, or until a date; None: no word."""
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        seconds /= 1000
    else:
        said = headers.get("retry-after")
        seconds = _number(said)
        if seconds is None and said is not None:
            seconds = _until(said)
    return None if seconds is None else min(seconds, _LONGEST_PAUSE)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _until(date: str) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _said(body: object) -> tuple[str, list[str]]:
    """An error's words, and what else names its kind."""
    error: object = body.get("error", body) if isinstance(body, Mapping) else body
    outer: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    inner: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
    words: object = error if isinstance(error, str) else inner.get("message", inner.get("detail", outer.get("detail")))
    named = [inner.get("code"), inner.get("type"), outer.get("error_type"), outer.get("code")]
    kinds = [str(kind)[:_LONGEST_REASON] for kind in named if isinstance(kind, str | int) and kind]
    return (words if isinstance(words, str) else "")[: 4 * _LONGEST_REASON], kinds


def _for_requester(place: RemotePlace, words: str) -> str:
    """The server's words without what is none of the requester's business: where it is, and our key."""
    secrets = [place.url, place.address, place.address.partition("://")[2]]
    if place.key is not None:
        secrets.append(place.key.get_secret_value())
    if place.user is not None:
        secrets += [word for word in (place.basic, place.user[1]) if word]
    for secret in sorted(secrets, key=len, reverse=True):
        words = words.replace(secret, "…")
    return shown_in_line(" ".join(words.split()))[:_LONGEST_REASON]


def _who(place: RemotePlace) -> str:
    return f"{place.name or place.row.label} at {place.shown_url}"


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
