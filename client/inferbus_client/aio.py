"""The client for programs with an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, closing, suppress
from types import AsyncGeneratorType, TracebackType
from typing import Any, Self, Unpack, cast

from inferbus_client.contract.presence import Presence
from inferbus_client.contract.wire import Accepted, Delta
from inferbus_client.contract.wire.messages import ToolCall
from inferbus_client.errors import StreamInUseError
from inferbus_client.exchange.announced import Announced
from inferbus_client.exchange.answer import Answer, Restarted
from inferbus_client.exchange.assembly import AnyReply
from inferbus_client.exchange.call import Content, Messages
from inferbus_client.exchange.core import ClientCore, CoreProperties
from inferbus_client.exchange.errand import Errand
from inferbus_client.exchange.options import AskOptions, TurnOptions, WaitOptions, announce
from inferbus_client.exchange.steps import Deliver, Event, Receive, Retry, Steps, next_step
from inferbus_client.exchange.tools import MAX_TOOL_ROUNDS, ToolRun, awaited
from inferbus_client.own_thread import in_own_thread
from inferbus_client.settings.client import ClientSettings


class AsyncClient(CoreProperties):
    """Asks a worker over MQTT, from one event loop. The verbs, arguments and errors are those of `Client`.

        async with AsyncClient("mqtt://broker.local") as client:
            print((await client.ask("Hello")).text)

    Replies come in the connection's network thread, which passes them into the loop; `on_stray` alone is called there.
    Deltas, `on_accepted` and `on_retry` are seen in the task that asks. What may take its time besides, connecting and
    closing, has a thread of its own each time: the loop's executor is the program's.
    """

    def __init__(
        self,
        settings: ClientSettings | str | None = None,
        *,
        on_stray: Callable[[AnyReply], None] | None = None,
        **overrides: Any,
    ) -> None:
        self._core = ClientCore(settings, overrides, caller=_current_task, on_stray=on_stray)

    # --- lifecycle ---

    async def connect(self) -> Self:
        """Connect to the broker, unless that is done; `async with` does it. See `Client.connect`."""
        try:
            await in_own_thread(self._core.connector(), f"connect-{self.client_id}")
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Disconnect. Requests in flight end at once, with `ClientClosedError`, and the worker is told to stop."""
        await in_own_thread(self._core.close, f"close-{self.client_id}")

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def listen_to_every_session(self) -> None:
        """Hear the replies of every session through one wildcard subscription; see `Client`."""
        async with aclosing(_drive(self._core.listen_to_every_session)) as nothing:
            async for _nothing in nothing:
                pass

    # --- the verbs ---

    async def ask(
        self,
        message: Content | None = None,
        *,
        messages: Messages | None = None,
        run_tools: bool = False,
        max_tool_rounds: int = MAX_TOOL_ROUNDS,
        **options: Unpack[AskOptions],
    ) -> Answer:
        """Ask, and wait for the whole answer; see `Client.ask`.

        With `run_tools` the tools may be asynchronous. They run one after the other, the others each in a thread.
        """
        if not run_tools:
            return await self._finish(self._core.request(message, options, stream=False, messages=messages), options)
        run = ToolRun(message, messages, options, max_tool_rounds, awaits=True)
        while True:
            answer = await self.ask(run.message, messages=run.messages, **run.options)
            calls = run.calls(answer)
            if not calls:
                return answer
            run.go_on(answer, {call.id: await self._run(run, call) for call in calls})

    async def _run(self, run: ToolRun, call: ToolCall) -> Any:
        result = None

        def in_thread() -> None:
            nonlocal result
            result = run.run(call)

        await in_own_thread(in_thread, f"tool-{self.client_id}")
        return await awaited(result) if isinstance(result, Awaitable) else result

    def stream(
        self, message: Content | None = None, *, messages: Messages | None = None, **options: Unpack[AskOptions]
    ) -> AsyncStream:
        """Ask, and iterate (`async for`) over the answer as it is generated; see `Client.stream`."""
        errand = self._core.request(message, options, stream=True, messages=messages)
        return AsyncStream(self._core, errand, _drive(errand.steps, options))

    async def cancel(self, session: str | None = None, request_id: str | None = None) -> None:
        """Cancel one request, or whatever the session has queued or running. Whoever waits gets the error."""
        self._core.cancel(session, request_id)

    async def repeat(self) -> None:
        """Send again, under the same ids, whatever has no answer yet; see `Client.repeat`."""
        self._core.repeat()

    async def reset(self, **options: Unpack[TurnOptions]) -> None:
        """Make the worker forget the conversation."""
        await self._finish(self._core.reset(options))

    async def new_session(self, **options: Unpack[WaitOptions]) -> str:
        """Ask the worker for a session id, and go on in that session."""
        self.session = (await self._finish(self._core.new_session(options))).text
        return self.session

    async def workers(self, timeout: float = 2.0) -> dict[str, Presence]:  # noqa: ASYNC109 - as `Client.workers`
        """What every worker on this broker last said of itself, by its id; see `Client.workers`."""
        found: dict[str, Presence] = {}
        hear = self._core.hear_announcements
        await in_own_thread(lambda: found.update(hear(timeout).presences), f"workers-{self.client_id}")
        return found

    async def follow_workers(self, known: Announced | None = None) -> Announced:
        """What every worker says of its state and its figures, kept up to date while this connection lasts.

        Args:
            known: what was followed on a connection before, to go on with.
        """
        hear, found = self._core.hear_announcements, list[Announced]()
        timeout = self.settings.connect_timeout
        await in_own_thread(lambda: found.append(hear(timeout, stats=True, known=known)), f"workers-{self.client_id}")
        return found[0]

    def ask_for_stats(self) -> None:
        """Ask every worker that may live for its figures, which those that are followed get."""
        self._core.ask_for_stats()

    async def _finish(self, errand: Errand, options: AskOptions | None = None) -> Answer:
        async with aclosing(_drive(errand.steps, options)) as events:
            async for _event in events:
                pass
        return errand.exchange.result()


class AsyncStream:
    """The answer as it comes: an asynchronous iterator of deltas whose texts join to the whole answer; see `Stream`.

    Attributes:
        request_id: for `AsyncClient.cancel`.
    """

    def __init__(self, core: ClientCore, errand: Errand, events: AsyncGenerator[Accepted | Delta | Restarted]) -> None:
        self.request_id = errand.exchange.call.request_id
        self._core = core
        self._errand = errand
        self._exchange = errand.exchange
        self._events = cast("AsyncGeneratorType[Accepted | Delta | Restarted, None]", events)

    @property
    def reply(self) -> Answer | None:
        """The whole answer, once the iteration has ended."""
        return self._exchange.answer

    def result(self) -> Answer:
        """The whole answer, after the iteration has ended.

        Raises:
            MisuseError: it has not, or with an error.
        """
        return self._exchange.result()

    async def cancel(self) -> None:
        """Ask the worker to stop; the iteration then ends with `RequestCancelledError`."""
        self._core.cancel_call(self._exchange.call)

    async def close(self) -> None:
        """Break off: cancel what still runs, and wait no longer.

        Raises:
            StreamInUseError: another task is reading it.
        """
        try:
            await self._events.aclose()
        except RuntimeError:
            if self._events.ag_running:
                raise StreamInUseError from None
            raise

    def __aiter__(self) -> AsyncIterator[Delta | Restarted]:
        return self

    async def __anext__(self) -> Delta | Restarted:
        while isinstance(event := await self.next_event(), Accepted):
            pass
        return event

    async def next_event(self) -> Accepted | Delta | Restarted:
        """What the iteration yields or, before that, the worker's word that it has accepted the request.

        In a group of workers that word may come later, too.

        Raises:
            StopAsyncIteration: the answer is whole.
        """
        self._errand.place.caller = self._core.caller()
        try:
            return await anext(self._events)
        except RuntimeError:
            if self._events.ag_running:
                raise StreamInUseError from None
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()


async def _drive(
    steps_for: Callable[[Deliver], Steps], options: AskOptions | None = None
) -> AsyncGenerator[Accepted | Delta | Restarted]:
    """Do the waiting in this loop."""
    inbox: asyncio.Queue[Event] = asyncio.Queue()
    with closing(steps_for(_into_loop(asyncio.get_running_loop(), inbox))) as steps:
        event: Event | None = None
        while (step := next_step(steps, event)) is not None:
            event = None
            if isinstance(step, Receive):
                event = await _receive(inbox, step.seconds)
            else:
                if options is not None and isinstance(step, Accepted | Retry):
                    announce(step, options)
                if not isinstance(step, Retry):
                    yield step


async def _receive(inbox: asyncio.Queue[Event], seconds: float) -> Event | None:
    if not inbox.empty():  # a timer for nothing costs as much as all else here
        return inbox.get_nowait()
    try:
        async with asyncio.timeout(seconds):
            return await inbox.get()
    except TimeoutError:
        return None


def _into_loop(loop: asyncio.AbstractEventLoop, inbox: asyncio.Queue[Event]) -> Deliver:
    def deliver(event: Event) -> None:
        with suppress(RuntimeError):  # the loop has ended: there is nobody left to tell
            loop.call_soon_threadsafe(inbox.put_nowait, event)

    return deliver


def _current_task() -> object:
    """The task that calls; without one (a stream may be made outside of a loop) a name that nobody else has."""
    try:
        return asyncio.current_task() or object()
    except RuntimeError:
        return object()
