"""Log lines that come as often as a stranger, or a fault, likes: one a second or so, or one for each cause."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

_EVERY: Final = 1.0
#: Causes that are remembered as said; a stranger's words may be among them.
_MOST_CAUSES: Final = 100


class Seldom:
    """Says one kind of thing to a logger, at most once in `every` seconds. Any thread may use it."""

    def __init__(
        self, log: logging.Logger, *, every: float = _EVERY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._every = every
        self._clock = clock
        self._next = 0.0
        self._left_out = 0
        self._lock = threading.Lock()

    def warning(self, text: str, *values: object) -> None:
        """As a logger's; what is left out is counted in the next line that is not."""
        now = self._clock()
        with self._lock:
            if now < self._next:
                self._left_out += 1
                return
            self._next = now + self._every
            left_out, self._left_out = self._left_out, 0
        if left_out:
            self._log.warning(text + " (%d more like this were left out)", *values, left_out)
        else:
            self._log.warning(text, *values)


class Once:
    """Says each cause once at its level, and at debug from then on. Any thread may use it."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: set[str] = set()

    def say(self, level: int, cause: str, text: str, *values: object) -> None:
        """Say `text`, whatever else is in it, once for this cause."""
        is_new = cause not in self._said
        if len(self._said) >= _MOST_CAUSES:
            self._said.clear()
        self._said.add(cause)
        self._log.log(level if is_new else logging.DEBUG, text, *values)

    def forget(self) -> None:
        """What was wrong is over: it is news when it comes again."""
        self._said.clear()
