"""Values as people write them in options, environment and files: `30s`, `500ms`, `1h`, `256 MiB`, `1e3`."""

from __future__ import annotations

import re
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, Field, PlainSerializer, ValidationInfo, field_validator

_UNITS: Final = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER: Final = r"\d+(?:\.\d+)?(?:e[+-]?\d{1,3})?"
_DURATION: Final = re.compile(rf"({_NUMBER})\s*(ms|s|m|h|d|)", re.ASCII)
_BYTES: Final = {"b": 1, "kb": 1000, "kib": 1024, "mb": 1000**2, "mib": 1024**2, "gb": 1000**3, "gib": 1024**3}
_SIZE: Final = re.compile(rf"({_NUMBER})\s*([kmg]?i?b|)", re.ASCII)
_EXPONENT: Final = re.compile(r"[+-]?\d+(?:\.\d*)?e[+-]?\d{1,3}", re.ASCII)
_PREFIXED: Final = re.compile(r"0(?:x[0-9a-f]{1,16}|o[0-7]{1,22})", re.ASCII)


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
        return f"{seconds * 1000:.12g}ms"
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.12g}{unit}"
    return f"{seconds:.12g}s"


def parse_size(value: object) -> object:
    """Bytes for `65536`, `64 KiB`, `100 kB`, `1.5 GiB`; anything that is not text passes through.

    Raises:
        ValueError: the text is no size.
    """
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip().lower())
    size = float("inf") if match is None else float(match[1]) * _BYTES[match[2] or "b"]
    if not size.is_integer():
        raise ValueError("must be a size such as 65536, 64 KiB or 256 MiB")
    return int(size)


def format_size(size: int) -> str:
    """The shortest way to write a size."""
    for unit, name in (("gib", "GiB"), ("mib", "MiB"), ("kib", "KiB")):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]} {name}"
    return str(size)


def counted(number: int, one: str, several: str | None = None) -> str:
    """`1 job`, `2 jobs`; of what does not end so, `several` is said, too: `2 replies`."""
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def parse_whole(value: object) -> object:
    """The whole number that is written as `1e3` or `0x10`; anything else passes through."""
    text = value.strip().lower() if isinstance(value, str) else ""
    if _PREFIXED.fullmatch(text):
        return int(text, 0)
    if _EXPONENT.fullmatch(text) and (number := float(text)).is_integer():
        return int(number)
    return value


class Written(BaseModel):
    """A model whose values people write: wherever a whole number is meant, it may be written as `parse_whole` says."""

    @field_validator("*", mode="before")
    @classmethod
    def _read_whole(cls, value: object, info: ValidationInfo) -> object:
        field = cls.model_fields[str(info.field_name)]
        return parse_whole(value) if bare_type(field.annotation) is int else value


def bare_type(kind: Any) -> Any:
    """A type without `| None` and `Annotated`; `str` for a union of several."""
    if get_origin(kind) is Annotated:
        return bare_type(get_args(kind)[0])
    if get_origin(kind) in {Union, UnionType}:
        arms = [arm for arm in get_args(kind) if arm is not type(None)]
        return bare_type(arms[0]) if len(arms) == 1 else str
    return kind


#: Seconds, written with a unit.
_Seconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, when_used="json"),
    Field(allow_inf_nan=False),
]
#: Ten years at most: clocks and timers of the system take no more than a few hundred.
Duration = Annotated[_Seconds, Field(ge=0, le=315_360_000)]

#: Bytes, written with or without a unit.
Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(format_size, when_used="json")]
#: A whole number in a stranger's message. JSON has any number of digits, and what is reckoned with them would overflow.
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
#: How long to wait for something: at most a day, which every clock and every queue can count.
Patience = Annotated[_Seconds, Field(gt=0, le=86_400)]


def split(value: object) -> object:
    """`a,b` is a list. For validators."""
    return parts(value) if isinstance(value, str) else value


def parts(text: str) -> list[str]:
    """What stands between commas, and is not blank."""
    return [part.strip() for part in text.split(",") if part.strip()]
