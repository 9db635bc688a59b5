"""The client for programs with an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, closing
from types import TracebackType
from typing import Any, Self, Unpack
from weakref import WeakValueDictionary

from inferbus_client.answer import Answer
from inferbus_client.assembly import AnyReply
from inferbus_client.call import Message
from inferbus_client.client_settings import ClientSettings
from inferbus_client.core import ClientCore, CoreProperties
from inferbus_client.errors import RequestTimeoutError
from inferbus_client.exchange import Exchange
from inferbus_client.options import AskOptions, announce, session_busy
from inferbus_client.steps import Event, Pause, Receive, next_step
from inferbus_client.wire import Delta


class AsyncClient(CoreProperties):
    """Asks a worker over MQTT, from one event loop. The verbs, arguments and errors are those of `Client`.

        async with AsyncClient("mqtt://broker.local") as client:
            print((await client.ask("Hello")).text)

    The connection's network thread is paho's; replies are passed into the loop.
    """

    def __init__(
        self,
        settings: ClientSettings | str | None = None,
        *,
        on_stray: Callable[[AnyReply], None] | None = None,
        **overrides: Any,
    ) -> None:
        self._core = ClientCore(settings, overrides, on_stray)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # --- lifecycle ---

    async def connect(self) -> Self:
        """Connect to the broker; `async with` does it."""
        try:
            await asyncio.to_thread(self._core.transport.open, self._core.settings.connect_timeout)
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Disconnect. Requests in flight end with `ConnectionLostError`."""
        await asyncio.to_thread(self._core.transport.close)

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def listen_to_every_session(self) -> None:
        """Hear the replies of every session through one wildcard subscription, for programs with very many sessions.

        Without it each session costs a subscription.

        Raises:
            BrokerError: the broker refuses the wildcard, or does not answer.
        """
        await asyncio.to_thread(
            self._core.transport.listen_to_every_session,
            self._core.addresses.every_reply(),
            self._core.settings.connect_timeout,
        )

    # --- the verbs ---

    async def ask(self, message: Message, **options: Unpack[AskOptions]) -> Answer:
        """Ask, and wait for the whole answer; see `Client.ask`."""
        return await self._finish(self._core.request(message, options, stream=False), options)

    def stream(self, message: Message, **options: Unpack[AskOptions]) -> AsyncStream:
        """Ask, and iterate (`async for`) over the answer as it is generated; see `Client.stream`."""
        exchange = self._core.request(message, options, stream=True)
        return AsyncStream(self._core, exchange, self._run(exchange, options))

    async def cancel(self, session: str | None = None, request_id: str | None = None) -> None:
        """Cancel one request, or whatever the session has queued or running. Whoever waits gets the error."""
        self._core.cancel(session, request_id)

    async def reset(self, **options: Unpack[AskOptions]) -> None:
        """Make the worker forget the conversation."""
        call = self._core.addresses.reset(options.get("session") or self.session)
        await self._finish(self._core.exchange(call, options), options)

    async def new_session(self, **options: Unpack[AskOptions]) -> str:
        """Ask the worker for a session id, and go on in that session."""
        call = self._core.addresses.new_session()
        self.session = (await self._finish(self._core.exchange(call, options), options)).text
        return self.session

    # --- waiting ---

    async def _finish(self, exchange: Exchange, options: AskOptions) -> Answer:
        async with aclosing(self._run(exchange, options)) as deltas:
            async for _delta in deltas:
                pass
        return exchange.result()

    async def _run(self, exchange: Exchange, options: AskOptions) -> AsyncGenerator[Delta]:
        transport, call = self._core.transport, exchange.call
        inbox: asyncio.Queue[Event] = asyncio.Queue()
        deliver = _into_loop(asyncio.get_running_loop(), inbox)
        async with self._turn(exchange, options):
            if not transport.is_listening(call.reply_topic):
                await asyncio.to_thread(transport.listen, call.reply_topic, exchange.remaining)
            with transport.waiting(call, deliver):
                async with aclosing(_drive(exchange, inbox, options)) as deltas:
                    async for delta in deltas:
                        yield delta

    @asynccontextmanager
    async def _turn(self, exchange: Exchange, options: AskOptions) -> AsyncIterator[None]:
        """One request of ours at a time in a session; the worker would refuse a second one."""
        if exchange.call.session is None:
            yield
            return
        lock = self._locks.setdefault(exchange.call.session, asyncio.Lock())
        if lock.locked() and options.get("when_busy") == "raise":
            raise session_busy()
        waited = exchange.remaining
        try:
            async with asyncio.timeout(waited):
                await lock.acquire()
        except TimeoutError:
            raise RequestTimeoutError("turn in the session", waited) from None
        try:
            yield
        finally:
            lock.release()


class AsyncStream:
    """The answer as it comes: an asynchronous iterator of deltas whose texts join to the whole answer.

    Attributes:
        request_id: for `AsyncClient.cancel`.
    """

    def __init__(self, core: ClientCore, exchange: Exchange, deltas: AsyncGenerator[Delta]) -> None:
        self.request_id = exchange.call.request_id
        self._core = core
        self._exchange = exchange
        self._deltas = deltas

    @property
    def reply(self) -> Answer | None:
        """The whole answer, once the iteration has ended."""
        return self._exchange.answer

    def result(self) -> Answer:
        """The whole answer, after the iteration has ended."""
        return self._exchange.result()

    async def cancel(self) -> None:
        """Ask the worker to stop; the iteration then ends with `RequestCancelledError`."""
        self._core.cancel(self._exchange.call.session, self.request_id)

    async def close(self) -> None:
        """Break off: cancel what still runs, and wait no longer."""
        await self._deltas.aclose()

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        return await anext(self._deltas)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()


async def _drive(exchange: Exchange, inbox: asyncio.Queue[Event], options: AskOptions) -> AsyncGenerator[Delta]:
    """Do an exchange's waiting in this loop."""
    with closing(exchange.steps()) as steps:
        event: Event | None = None
        while (step := next_step(steps, event)) is not None:
            event = None
            announce(step, options)
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, Receive):
                event = await _receive(inbox, step.seconds)
            elif isinstance(step, Delta):
                yield step


async def _receive(inbox: asyncio.Queue[Event], seconds: float) -> Event | None:
    try:
        async with asyncio.timeout(seconds):
            return await inbox.get()
    except TimeoutError:
        return None


def _into_loop(loop: asyncio.AbstractEventLoop, inbox: asyncio.Queue[Event]) -> Callable[[Event], None]:
    def deliver(event: Event) -> None:
        # A loop that has ended has nobody left to tell.
        if not loop.is_closed():
            loop.call_soon_threadsafe(inbox.put_nowait, event)

    return deliver
