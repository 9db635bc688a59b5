"""How much work something is, counted instead of timed: a busy machine takes longer, and does no more."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def steps_of(deed: Callable[[], object]) -> int:
    """How many lines of Python run in the deed. What C code does inside one of them does not count."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        deed()
    finally:
        sys.settrace(before)
    return count
