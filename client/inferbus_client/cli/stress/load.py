"""Generates the load: a closed or an open loop of requests over a few connections."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from array import array
from collections.abc import Callable, Coroutine, Sequence
from itertools import pairwise
from random import Random
from typing import Any

from inferbus_client.aio import AsyncClient
from inferbus_client.cli.stress.arrivals import arrivals
from inferbus_client.cli.stress.ledger import Ledger
from inferbus_client.cli.stress.plan import Plan
from inferbus_client.errors import InvalidRequestError, RequestFailedError, RequestTimeoutError
from inferbus_client.exchange.answer import Answer, Restarted
from inferbus_client.exchange.options import AskOptions


class Load:
    """One plan, carried out once.

    Args:
        clients: connections that the conversations share, connected.
        plan: what to do.
        ledger: where every request is written down.
        on_progress: called after every request.
    """

    def __init__(
        self, clients: Sequence[AsyncClient], plan: Plan, ledger: Ledger, on_progress: Callable[[], None]
    ) -> None:
        self._clients = clients
        self._plan = plan
        self._ledger = ledger
        self._on_progress = on_progress
        self._name = f"stress-{uuid.uuid4().hex[:8]}"
        self._request_numbers = itertools.count()
        self._ends = float("inf")

    async def warm_up(self) -> None:
        """Requests that are not counted; the first ones of an engine are slow."""
        for number in range(self._plan.num_warmups):
            session = f"{self._name}-warm-{number}"
            try:
                await self._ask(self._clients[0], session, self._next_id(), self._plan.prompt(0, number))
            except (RequestFailedError, RequestTimeoutError) as error:
                self._may_give_up(error)
                return

    async def run(self) -> None:
        """Send everything, and wait for what becomes of it.

        Raises:
            BrokerError: the connection is gone for good.
            InvalidRequestError: where the plan gives up: no request like these is answered.
            RequestTimeoutError: the same: nobody says anything.
        """
        began = time.monotonic()
        if self._plan.ends_after is not None:
            self._ends = began + self._plan.ends_after
        try:
            async with asyncio.TaskGroup() as tasks:
                if self._plan.is_open:
                    await self._open_loop(tasks, began)
                else:
                    self._closed_loop(tasks)
        except ExceptionGroup as group:
            raise _first(group) from None

    # --- closed loop ---

    def _closed_loop(self, tasks: asyncio.TaskGroup) -> None:
        for number in range(self._plan.clients):
            tasks.create_task(self._converse(number), name=f"client-{number}")

    async def _converse(self, number: int) -> None:
        plan = self._plan
        await asyncio.sleep(plan.ramp_up * number / plan.clients)
        for message in plan.numbers():
            if time.monotonic() >= self._ends:
                return
            session, prompt = f"{self._name}-{number}", plan.prompt(number, message)
            rest = await self._account_for(number, session, prompt, time.monotonic())
            await asyncio.sleep(max(min(rest, self._ends - time.monotonic()), 0))

    # --- open loop ---

    async def _open_loop(self, tasks: asyncio.TaskGroup, began: float) -> None:
        plan = self._plan
        free = asyncio.Semaphore(plan.max_concurrency)
        random = Random(plan.seed)  # noqa: S311 - a repeatable schedule, no secret
        due = arrivals(plan.request_rate or 1.0, burstiness=plan.burstiness, ramp_up=plan.ramp_up, random=random)
        for number, offset in enumerate(due):
            scheduled = began + offset
            if scheduled >= self._ends:
                return
            await asyncio.sleep(max(scheduled - time.monotonic(), 0))
            if not await self._in_time(free.acquire()):
                return
            # As fast as they go, a request is due when there is room for it.
            since = time.monotonic() if plan.is_unpaced else scheduled
            task = tasks.create_task(
                self._account_for(number, f"{self._name}-{number}", plan.prompt(number, 0), since),
                name=f"request-{number}",
            )
            task.add_done_callback(lambda _task: free.release())

    async def _in_time(self, wish: Coroutine[Any, Any, object]) -> bool:
        """Whether it comes true before the end."""
        try:
            async with asyncio.timeout(self._ends - time.monotonic()):
                await wish
        except TimeoutError:
            return False
        return time.monotonic() < self._ends

    # --- one request ---

    def _next_id(self) -> str:
        return f"{self._name}-{next(self._request_numbers)}"

    async def _account_for(self, number: int, session: str, prompt: str, scheduled: float) -> float:
        """Send a request and write down what becomes of it; the seconds for which the worker asks to be left alone.

        Only a model that is away is: to hammer it measures nothing, while other refusals are what a load is to show.
        """
        rest = 0.0
        client = self._clients[number % len(self._clients)]
        request_id = self._next_id()
        self._ledger.sent(request_id, scheduled)
        try:
            answer, intervals = await self._ask(client, session, request_id, prompt)
        except RequestFailedError as error:
            self._ledger.refused_or_failed(request_id, error.code)
            self._may_give_up(error)
            if error.code == "engine_unavailable":
                rest = error.retry_after or 0.0
        except RequestTimeoutError as error:
            self._ledger.lost(request_id)
            self._may_give_up(error)
        else:
            self._ledger.answered(request_id, answer, streamed=self._plan.stream, intervals=intervals)
        self._on_progress()
        return rest

    def _may_give_up(self, error: RequestFailedError | RequestTimeoutError) -> None:
        is_final = isinstance(error, InvalidRequestError) or (
            isinstance(error, RequestTimeoutError) and error.what == "first sign of life"
        )
        if self._plan.gives_up and is_final:
            raise error

    async def _ask(
        self, client: AsyncClient, session: str, request_id: str, prompt: str
    ) -> tuple[Answer, Sequence[float]]:
        """The answer, and the seconds between the parts of its stream."""
        options: AskOptions = {**self._plan.options, "session": session, "request_id": request_id}
        message, messages = (None, [{"role": "user", "content": prompt}]) if self._plan.stateless else (prompt, None)
        if not self._plan.stream:
            return await client.ask(message, messages=messages, **options), ()
        times = array("d")
        async with client.stream(message, messages=messages, **options) as deltas:
            async for part in deltas:
                if isinstance(part, Restarted):
                    del times[:]
                else:
                    times.append(time.monotonic())
        return deltas.result(), array("d", (after - before for before, after in pairwise(times)))


def _first(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
