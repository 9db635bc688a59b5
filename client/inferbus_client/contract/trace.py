"""W3C Trace Context as it travels on the bus: MQTT 5's user properties `traceparent` and `tracestate`.

What comes is a stranger's. What does not keep to the grammar is ignored, never an error: a `tracestate` alone where
only that is wrong, both where the `traceparent` is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
#: Characters of a `tracestate` that are handed on.
LONGEST_TRACESTATE: Final = 512
#: Entries of one.
MOST_ENTRIES: Final = 32
#: Characters of a `traceparent` that is of a later version than ours, and may have more fields.
_LONGEST_TRACEPARENT: Final = 512

_PARENT: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?",
)
_KEY: Final = r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
# Printable ASCII but for comma and equals sign, not ending in a blank.
_VALUE: Final = r"[ !-+\--<>-~]{0,255}[!-+\--<>-~]"
_ENTRY: Final = re.compile(rf"(?P<key>{_KEY})={_VALUE}")
_NO_VERSION: Final = "ff"
_OURS: Final = "00"
_SAMPLED: Final = 0x01


class TraceContext(NamedTuple):
    """Where a request stands in somebody's trace: a `traceparent` by the grammar, and a `tracestate`, or none."""

    traceparent: str
    tracestate: str = ""

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """As user properties."""
        parent = (TRACEPARENT, self.traceparent)
        return (parent, (TRACESTATE, self.tracestate)) if self.tracestate else (parent,)

    @property
    def headers(self) -> dict[str, str]:
        """As HTTP headers, and as the option `trace_headers`."""
        return dict(self.pairs)

    @property
    def size(self) -> int:
        """Characters that a stranger has made as many as he liked, within the bounds."""
        return len(self.traceparent) + len(self.tracestate)


def read_trace(pairs: Iterable[tuple[str, str]]) -> TraceContext | None:
    """The context among user properties or HTTP headers, whose names are in small letters; None where there is none.

    Two `traceparent`s are none; several `tracestate`s are one, in their order.
    """
    parents: list[str] = []
    states: list[str] = []
    for name, value in pairs:
        if name == TRACEPARENT:
            parents.append(value)
        elif name == TRACESTATE:
            states.append(value)
    parent = _parent(parents[0]) if len(parents) == 1 else None
    return None if parent is None else TraceContext(parent, _state(states))


def _parent(text: str) -> str | None:
    found = _PARENT.fullmatch(text) if len(text) <= _LONGEST_TRACEPARENT else None
    if found is None or found["version"] == _NO_VERSION or not (int(found["trace"], 16) and int(found["span"], 16)):
        return None
    if found["version"] == _OURS:
        return None if found["more"] else text
    # Of a later version its first four fields are known, and of its flags one.
    return f"{_OURS}-{found['trace']}-{found['span']}-{int(found['flags'], 16) & _SAMPLED:02x}"


def _state(texts: list[str]) -> str:
    if sum(map(len, texts)) + len(texts) > LONGEST_TRACESTATE + 1:
        return ""
    entries = [entry.strip(" \t") for entry in ",".join(texts).split(",")]
    found = [_ENTRY.fullmatch(entry) for entry in entries if entry]
    keys = {entry["key"] for entry in found if entry is not None}
    if len(keys) != len(found) or len(found) > MOST_ENTRIES:  # one is wrong, or two have the same key
        return ""
    return ",".join(entry for entry in entries if entry)
