"""Values as people write them in options, environment and files: `30s`, `500ms`, `1h`."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, Field

_UNITS: Final = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)")


def parse_duration(value: object) -> object:
    """Seconds for `1.5`, `250ms`, `30s`, `5m`, `1h`, `1d`; anything that is not text passes through.

    Raises:
        ValueError: the text is no duration.
    """
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip().lower())
    if match is None:
        raise ValueError("must be a duration such as 500ms, 30s, 5m or 1h")
    return float(match[1]) * _UNITS[match[2]]


def format_duration(seconds: float) -> str:
    """The shortest way to write a duration."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"


#: Seconds, written with a unit.
Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0, allow_inf_nan=False)]
#: How long to wait for something: at most a day, which every clock and every queue can count.
Patience = Annotated[Duration, Field(gt=0, le=86_400)]
