"""Whether the server has given up, too, what was given up here: closed connections have left slots busy for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

#: Seconds that a server has to free a slot, and between two looks.
_PATIENCE: Final = 2.0
_LOOK: Final = 0.2

log = logging.getLogger("inferbus.remote")


class SlotWatch:
    """Looks after what was given up. Lives on the loop.

    A server tells how many requests it has under way, not whose they are. So those of others, who may ask it too, are
    taken to be what it had besides ours when last seen; they can be mistaken for leaked ones where they become more
    just then, but for no more than were given up here.

    Args:
        name: of the slot, for the log.
        ours: how many requests we have under way there.
        busy: how many it says it has; None where it does not say.

    Attributes:
        leaked: how many went on.
    """

    def __init__(self, name: str, ours: Callable[[], int], busy: Callable[[], Awaitable[int | None]]) -> None:
        self._name = name
        self._ours = ours
        self._busy = busy
        self._others = 0
        self._given_up = 0
        self._look: asyncio.Task[None] | None = None
        self.leaked = 0

    async def begin(self) -> None:
        """See what the server does for others, while we ask nothing of it."""
        self._others = max(0, (await self._busy() or 0) - self._ours())

    def given_up(self) -> None:
        """A generation was left before its end."""
        self._given_up += 1
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().create_task(self._look_after(), name="slot watch")

    def stop(self) -> None:
        if self._look is not None:
            self._look.cancel()

    async def _look_after(self) -> None:
        while self._given_up:
            given_up, self._given_up = self._given_up, 0
            least = await self._least_of_others()
            if least is None:
                return
            leaked = min(given_up, least - self._others)
            if leaked > 0:
                self.leaked += leaked
                log.warning(
                    "%s: %d given up, and still busy there after %g s; it has leaked %d so far",
                    *(self._name, leaked, _PATIENCE, self.leaked),
                )
            # Those that were given up meanwhile may go on as well, and are no others'.
            self._others = min(least, max(self._others + max(leaked, 0), least - self._given_up))

    async def _least_of_others(self) -> int | None:
        """The least that the server had besides ours for a while, or as soon as that is no more than before."""
        least: int | None = None
        until = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            busy = await self._busy()
            if busy is None:
                return None
            others = max(0, busy - self._ours())
            least = others if least is None else min(least, others)
            if least <= self._others or asyncio.get_running_loop().time() >= until:
                return least
            await asyncio.sleep(_LOOK)
