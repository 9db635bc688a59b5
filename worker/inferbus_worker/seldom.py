"""Log lines that come as often as a stranger, or a fault, likes: one a second or so, and how many were left out."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

_EVERY: Final = 1.0


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
