"""One run of `inferbus stress` from the first connection to the last result."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from inferbus_client.aio import AsyncClient
from inferbus_client.cli.stress.ledger import Ledger
from inferbus_client.cli.stress.load import Load
from inferbus_client.cli.stress.plan import Plan
from inferbus_client.cli.stress.result import Result
from inferbus_client.exchange.assembly import AnyReply
from inferbus_client.settings.client import ClientSettings


class Onlooker(Protocol):
    """Told how far a run is."""

    def begin(self, plan: Plan) -> None: ...
    def advance(self) -> None: ...


class StressSession:
    """Carries out plans one after the other over the same few connections.

    Attributes:
        results: of every plan that was begun, the interrupted one included.
        interrupted: whether Ctrl-C ended it.
    """

    def __init__(self, settings: ClientSettings, connections: int, onlooker: Onlooker) -> None:
        self._settings = settings
        self._connections = connections
        self._onlooker = onlooker
        self._ledger = Ledger()
        self.results: list[Result] = []
        self.interrupted = False

    def run(self, plans: Iterable[Plan]) -> None:
        """Run the plans; Ctrl-C ends them early, and what was measured until then stays.

        Each plan is asked for when those before it have their results.

        Raises:
            BrokerError: the broker cannot be reached, refuses us, or went away.
        """
        asyncio.run(self._run(plans))

    async def _run(self, plans: Iterable[Plan]) -> None:
        async with self._clients() as clients:
            for plan in plans:
                await self._run_level(clients, plan)
                if self.interrupted:
                    return

    async def _run_level(self, clients: Sequence[AsyncClient], plan: Plan) -> None:
        self._ledger = ledger = Ledger()
        load = Load(clients, plan, ledger, self._onlooker.advance)
        self._onlooker.begin(plan)
        began = time.monotonic()
        try:
            await load.warm_up()
            began = time.monotonic()
            await load.run()
            wall = time.monotonic() - began
            await asyncio.sleep(plan.settle)
        except asyncio.CancelledError:
            # asyncio.run turns the first Ctrl-C into this; a second one is a KeyboardInterrupt at once.
            self.interrupted = True
            wall = time.monotonic() - began
        self.results.append(Result.of(plan, ledger, wall))

    @asynccontextmanager
    async def _clients(self) -> AsyncIterator[list[AsyncClient]]:
        name = self._settings.client_id or f"inferbus-stress-{uuid.uuid4().hex[:8]}"
        async with AsyncExitStack() as stack:
            clients = []
            for number in range(self._connections):
                settings = self._settings.model_copy(update={"client_id": f"{name}-{number}"})
                client = await stack.enter_async_context(AsyncClient(settings, on_stray=self._stray))
                await client.listen_to_every_session()
                clients.append(client)
            yield clients

    def _stray(self, reply: AnyReply) -> None:
        # Each level has a ledger of its own; a reply of an earlier level is in none and counts nowhere.
        self._ledger.stray(reply)
