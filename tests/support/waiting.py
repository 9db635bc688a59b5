"""Waiting for something to become true, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

Result = TypeVar("Result")

#: Seconds after which what a test waits for never comes: no promise of anybody's, but the end of a test that would else
#: hang. A machine that is busy with other things is slow many times over, and nothing is wrong with that.
PATIENCE: Final = 60.0

#: The same for what has an engine to load: half a minute alone, and many times that beside others that load one.
LOADING: Final = 500.0


def until(predicate: Callable[[], Result], timeout: float = PATIENCE, *, every: float = 0.02) -> Result:
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
