"""How many requests may be under way: fewer after a refusal, none while the worker asks us to wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from inferbus_client.exchange.pacing import Backoff

#: Of the number at once, after a refusal; it grows again by one for as many answers as there may be at once.
_CUT: Final = 0.5


class Pace:
    """The gate that all requests of a batch go through. For one event loop.

    A refusal is a word to all of them: they wait together until `retry_after` has passed, and then fewer go at once.
    So a limit costs a few refusals, not one for each request and each try.

    Args:
        most: how many may be under way at once.

    Attributes:
        troubled_since: when it was first refused, or nobody was there; None once there has been an answer since.
        held: why nothing goes, in words; empty while nothing holds it.
    """

    def __init__(
        self, most: int, *, backoff: Backoff | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.troubled_since: float | None = None
        self.held = ""
        self._most = most
        self._at_once = float(most)
        self._active = 0
        self._refusals = 0
        self._cut = self._opens = -1.0
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._changed = asyncio.Event()

    @property
    def at_once(self) -> int:
        """How many may be under way now."""
        return int(self._at_once)

    @property
    def pause(self) -> float:
        """Seconds until anything goes, after a refusal."""
        return max(self._opens - self._clock(), 0.0)

    def allow(self, most: int) -> None:
        """Let at most so many be under way from now on; who is over that ends first."""
        if most == self._most:
            return
        self._at_once = float(most) if self._at_once == self._most else min(self._at_once, most)
        self._most = most
        self._changed.set()

    async def enter(self) -> float:
        """Wait for a place, and take it; returns when that was."""
        while self.held or self._active >= self.at_once or self.pause:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.pause or None):
                    await self._changed.wait()
        self._active += 1
        return self._clock()

    def leave(self) -> None:
        self._active -= 1
        self._changed.set()

    def answered(self) -> None:
        self._refusals = 0
        self.troubled_since = None
        self._at_once = min(self._at_once + 1 / self._at_once, self._most)

    def refused(self, entered: float, retry_after: float | None) -> None:
        """A request was refused that had its place since `entered`."""
        now = self._clock()
        if entered > self._cut:  # those that were under way with it say the same
            self._cut = now
            self._at_once = max(self._at_once * _CUT, 1.0)
            self._refusals += 1
        self._opens = max(self._opens, now + self._backoff.delay(self._refusals - 1, retry_after))
        self._trouble(now)

    def hold(self, why: str) -> None:
        """Let nothing go while there is a reason; an empty one ends it."""
        if why:
            self._trouble(self._clock())
        if why != self.held:
            self.held = why
            self._changed.set()

    def _trouble(self, now: float) -> None:
        if self.troubled_since is None:
            self.troubled_since = now
