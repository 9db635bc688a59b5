"""Limits per time, as people write them: `10/60s`, or `off`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, PlainSerializer

from inferbus_client.units import format_duration, parse_duration


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` requests (of a token budget: tokens) in any `window` seconds."""

    limit: int
    window: float


def _parse_rate_limit(value: object) -> object:
    if value is None or (isinstance(value, str) and value.strip().lower() == "off") or value is False:
        return None
    if not isinstance(value, str):
        return value
    limit, _, window = value.partition("/")
    try:
        seconds = parse_duration(window)
    except ValueError:
        seconds = None
    if not limit.strip().isdecimal() or int(limit) < 1 or not isinstance(seconds, float):
        raise ValueError("must be a number per time, such as 10/60s, or off")
    if seconds <= 0:
        raise ValueError("the window must be longer than nothing")
    return RateLimit(int(limit), seconds)


def _format_rate_limit(rate: RateLimit | str | None) -> str:
    if isinstance(rate, RateLimit):
        return f"{rate.limit}/{format_duration(rate.window)}"
    return rate or "off"


_AsWritten = PlainSerializer(_format_rate_limit, when_used="json")

#: `10/60s`, or `off`.
Rate = Annotated[RateLimit | None, BeforeValidator(_parse_rate_limit), _AsWritten]

#: The same, or `inherit`: whatever holds for every project.
OwnRate = Annotated[
    RateLimit | Literal["inherit"] | None,
    BeforeValidator(lambda value: value if value == "inherit" else _parse_rate_limit(value)),
    _AsWritten,
]
