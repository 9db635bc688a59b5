"""Whether anybody is there who answers, by the workers' own word."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Final

from inferbus_client.aio import AsyncClient
from inferbus_client.contract.presence import Presence
from inferbus_client.errors import BrokerError
from inferbus_client.exchange.announced import ready_for, serves, why_nobody

#: How long the broker may take with what it has retained.
_GATHER: Final = 0.5
_TICK: Final = 0.02


class Attendance:
    """Looks who serves the project. A broker that does not let us hear it leaves us to the timeouts.

    Attributes:
        missing: why nobody is there, in words; empty while somebody is, and where nothing is known of anybody.
        since: when there last was a change: what was sent before may be lost.
    """

    def __init__(self, client: AsyncClient) -> None:
        self.missing = ""
        self.since = 0.0
        self._client = client
        self._ready: list[Presence] = []
        self._runs: set[str] | None = None
        self._hears = True

    @property
    def capacity(self) -> int | None:
        """How many requests those who are ready run at once, where they say so."""
        return sum(one.capacity or 0 for one in self._ready) or None

    @property
    def model(self) -> str:
        """What answers a request that names no model; empty where nobody says."""
        return next((one.model for one in self._ready if one.model), "")

    async def gather(self) -> None:
        """Wait until somebody is ready, or nobody can be expected to be."""
        deadline = time.monotonic() + _GATHER
        await self.look()
        while self._hears and not self._ready and time.monotonic() < deadline:
            await asyncio.sleep(_TICK)
            await self.look()

    async def look(self) -> None:
        """See who is there now. Where another run of a worker has come, it is sent what the last one may have taken.

        What a worker of a group takes with it, the others of its group take over.
        """
        if not self._hears:
            return
        try:
            presences = (await self._client.workers()).values()
        except BrokerError:
            self._hears = False
            return
        settings = self._client.settings
        serving = [one for one in presences if serves(one, settings)]
        self._ready = ready_for(settings, serving)
        self.missing = why_nobody(settings, serving)[0] if serving and not self._ready else ""
        if self.missing:
            self.since = time.monotonic()
        runs = _runs(self._ready)
        if runs and self._runs is not None and not runs <= self._runs:
            self.since = time.monotonic()
            await self._client.repeat()
        self._runs = runs or self._runs


def _runs(presences: Iterable[Presence]) -> set[str]:
    return {one.instance.mark for one in presences if one.instance is not None and one.group is None}
