"""Waiting for something to become true, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def until(predicate: Callable[[], Result], timeout: float = 10.0, *, every: float = 0.02) -> Result:
    """The first true result of `predicate`.

    Raises:
        AssertionError: it was still false after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        if result := predicate():
            return result
        if time.monotonic() >= deadline:
            raise AssertionError(f"not true within {timeout:g} s")
        time.sleep(every)
