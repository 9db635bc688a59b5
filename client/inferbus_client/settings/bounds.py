"""What a setting may be that is written with a unit, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import PlainSerializer
from pydantic.fields import FieldInfo


def allowed(field: FieldInfo) -> str | None:
    """Such as `at least 2s and at most 1h`; None where it is written without a unit, or has no bounds."""
    parts = list(_parts(field))
    written: Any = next((part.func for part in parts if isinstance(part, PlainSerializer)), None)
    if written is None:
        return None
    # Of two that are the same the one counts that leaves the bound itself out.
    low = max([*_said(parts, "ge", 0), *_said(parts, "gt", 1)], default=None)
    high = min([*_said(parts, "lt", 0), *_said(parts, "le", 1)], default=None)
    words = [] if low is None else [f"{('at least', 'more than')[low[1]]} {written(low[0])}"]
    words += [] if high is None else [f"{('less than', 'at most')[high[1]]} {written(high[0])}"]
    return " and ".join(words) or None


def _said(parts: list[Any], name: str, rank: int) -> list[tuple[float, int]]:
    return [(value, rank) for part in parts if (value := getattr(part, name, None)) is not None]


def _parts(kind: Any) -> Iterator[Any]:
    """What stands in `Annotated` and `Field`, however deep."""
    for part in getattr(kind, "metadata", getattr(kind, "__metadata__", ())):
        yield part
        yield from _parts(part)
    for inner in [kind.annotation] if isinstance(kind, FieldInfo) else get_args(kind):
        yield from _parts(inner)
