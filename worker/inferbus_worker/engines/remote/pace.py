"""One server's flood of tiny pieces must not keep the loop from the others: its own answer is late instead."""

from __future__ import annotations

import asyncio
import time
from typing import Final

#: Seconds of work in one go that one answer may cost the loop, and that it rests then.
_TURN: Final = 0.005
_REST: Final = 0.01


class Pace:
    """Of one answer. Lives on the loop; whoever reads the answer asks after each piece whether to rest.

    A piece that had to be waited for begins a new turn, so an answer that comes as it is generated never rests.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether this answer has had its turn: time to `rest`."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
            self._loop.call_soon(self._end_turn)  # which comes as soon as the others have theirs
        return now - self._began >= _TURN

    async def rest(self) -> None:
        await asyncio.sleep(_REST)

    def _end_turn(self) -> None:
        self._began = None
