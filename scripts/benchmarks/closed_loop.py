"""A closed loop of clients: each session sends its next request when it has the answer to the one before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from .dialects import Dialect, Text
from .mqtt import Connection
from .outcome import Outcome, Trip


class ClosedLoop:
    """`sessions` clients on one connection, `requests` round trips in all.

    Args:
        port: the broker's, on this machine.
        sessions: how many requests are under way at once.
        requests: how many in all.
        project: whose topics.
        projects: instead of one, many; sessions are dealt to them in turns.
        dialect: what is said.
        name: what its sessions are called by; a run of the same name goes on with them.
        fresh: give every request a session id of its own.
        patience: seconds for the whole run.
    """

    def __init__(
        self,
        port: int,
        *,
        sessions: int,
        requests: int,
        project: str = "general",
        projects: Sequence[str] = (),
        dialect: Dialect | None = None,
        name: str | None = None,
        fresh: bool = False,
        patience: float = 120.0,
    ) -> None:
        self._port = port
        self._sessions = min(sessions, requests)
        self._requests = requests
        self._projects = projects or (project,)
        self._dialect = Text() if dialect is None else dialect
        self._fresh = fresh
        self._patience = patience
        self._begun = 0
        self._under_way: dict[str, Trip] = {}
        self._outcome = Outcome()
        self._done = asyncio.Event()
        self._name = name or f"{time.monotonic_ns():x}"

    async def run(self) -> Outcome:
        """Make the load.

        Raises:
            TimeoutError: not every answer came in time.
        """
        heard = self._projects[0] if len(self._projects) == 1 else "+"
        self._connection = await Connection.open(self._port, f"{heard}/assistant_response/#", self._on_message)
        began = time.perf_counter()
        for number in range(self._sessions):
            self._send(f"{self._name}-{number}")
        try:
            await asyncio.wait_for(self._done.wait(), self._patience)
        except TimeoutError:
            missing = self._requests - self._outcome.ended
            raise TimeoutError(f"{missing} of {self._requests} answers are missing") from None
        finally:
            self._connection.close()
        self._outcome.seconds = time.perf_counter() - began
        return self._outcome

    def _send(self, session: str) -> None:
        number = self._begun
        self._begun += 1
        project = self._projects[int(session.rpartition("-")[2]) % len(self._projects)]
        payload = self._dialect.request(number, f"{project}/assistant_response/{session}")
        self._under_way[session] = Trip(number, time.perf_counter())
        self._connection.publish(f"{project}/user_input/{session}", payload)

    def _on_message(self, session: str, payload: bytes) -> None:
        trip = self._under_way.get(session)
        if trip is None or not self._dialect.reply(trip, payload):
            return
        self._outcome.add(trip, time.perf_counter())
        del self._under_way[session]
        if self._outcome.ended == self._requests:
            self._done.set()
        elif self._begun < self._requests:
            self._send(f"{self._name}-{self._begun}" if self._fresh else session)


def run(port: int, **options: object) -> Outcome:
    """Make a closed loop's load from outside of any event loop; arguments as for `ClosedLoop`."""

    async def load() -> Outcome:
        return await ClosedLoop(port, **options).run()  # type: ignore[arg-type]

    return asyncio.run(load())
