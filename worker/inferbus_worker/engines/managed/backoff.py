"""How long a server that has ended is left alone before it is started again."""

from __future__ import annotations

from typing import Final

from inferbus_worker.engines.backoff import jittered_pause

SHORTEST: Final = 1.0
LONGEST: Final = 30.0


class Backoff:
    """Pauses that double from 1 to 30 seconds, with jitter, so that what fell together does not rise together."""

    def __init__(self) -> None:
        self._ends = 0

    def after(self, lived: float) -> float:
        """The pause in seconds, when it was ready for `lived` seconds; whoever held out as long begins anew."""
        if lived >= LONGEST:
            self._ends = 0
        pause = jittered_pause(SHORTEST, self._ends, LONGEST)
        self._ends += 1
        return max(SHORTEST, pause)
