"""An open loop: requests come at a rate, whatever becomes of the ones before. This is what overload looks like."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from .dialects import Dialect
from .mqtt import Connection
from .outcome import Outcome, Trip

_TICK: Final = 0.001


class OpenLoop:
    """Requests at `rate` per second for `seconds`, each in a session of its own.

    Args:
        port: the broker's, on this machine.
        rate: requests per second.
        seconds: for how long.
        dialect: what is said.
        patience: seconds to wait for the last answers.
    """

    def __init__(self, port: int, *, rate: float, seconds: float, dialect: Dialect, patience: float = 20.0) -> None:
        self._port = port
        self._rate = rate
        self._seconds = seconds
        self._patience = patience
        self._dialect = dialect
        self._under_way: dict[str, Trip] = {}
        self._outcome = Outcome()
        self._run_id = f"{time.monotonic_ns():x}"

    async def run(self) -> Outcome:
        """Make the load.

        Raises:
            TimeoutError: not every answer came in time.
        """
        self._connection = await Connection.open(self._port, "general/assistant_response/+", self._on_message)
        try:
            began = time.perf_counter()
            await self._send_all(began)
            self._outcome.seconds = time.perf_counter() - began
            await self._wait_for_the_last()
        finally:
            self._connection.close()
        return self._outcome

    async def _send_all(self, began: float) -> None:
        total, sent = int(self._rate * self._seconds), 0
        while sent < total:
            due = min(total, int((time.perf_counter() - began) * self._rate) + 1)
            while sent < due:
                self._send(sent)
                sent += 1
            await asyncio.sleep(_TICK)

    async def _wait_for_the_last(self) -> None:
        deadline = time.perf_counter() + self._patience
        while self._under_way:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{len(self._under_way)} answers are missing")
            await asyncio.sleep(_TICK)

    def _send(self, number: int) -> None:
        session = f"{self._run_id}-{number}"
        self._under_way[session] = Trip(number, time.perf_counter())
        payload = self._dialect.request(number, f"general/assistant_response/{session}")
        self._connection.publish(f"general/user_input/{session}", payload)

    def _on_message(self, session: str, payload: bytes) -> None:
        trip = self._under_way.pop(session, None)
        if trip is not None and self._dialect.reply(trip, payload):
            self._outcome.add(trip, time.perf_counter())


def run(port: int, *, rate: float, seconds: float, dialect: Dialect) -> Outcome:
    """Make an open loop's load from outside of any event loop."""

    async def load() -> Outcome:
        return await OpenLoop(port, rate=rate, seconds=seconds, dialect=dialect).run()

    return asyncio.run(load())
