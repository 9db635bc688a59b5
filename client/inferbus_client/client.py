"""The client for programs with threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from queue import Empty, SimpleQueue
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
from inferbus_client.presence import Presence
from inferbus_client.steps import Event, Pause, Receive, next_step
from inferbus_client.wire import Delta


class Client(CoreProperties):
    """Asks a worker over MQTT, from any number of threads.

        with Client("mqtt://broker.local", project="general") as client:
            print(client.ask("Hello").text)

    Requests of one session take turns, and are sent at least `pacing` apart (half a second; `pacing=0` turns it off);
    those of other sessions wait for neither. So 50 threads with a question each name 50 sessions.

    Args:
        settings: a broker URL, or all settings; what is left out comes from the environment (`INFERBUS_…`, then
            `MQTT_…`), then the defaults.
        on_stray: called with replies that nobody waits for any more, in the network thread.
        **overrides: single settings by name, beside a URL (`project`, `session`, `timeout`, …).

    Raises:
        SettingsError: a setting is not usable.
    """

    def __init__(
        self,
        settings: ClientSettings | str | None = None,
        *,
        on_stray: Callable[[AnyReply], None] | None = None,
        **overrides: Any,
    ) -> None:
        self._core = ClientCore(settings, overrides, on_stray)
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._locks_guard = threading.Lock()

    # --- lifecycle ---

    def connect(self) -> Self:
        """Connect to the broker; `with` does it.

        Raises:
            BrokerError: nobody answers within `connect_timeout`, or the broker refuses this client.
        """
        try:
            self._core.transport.open(self._core.settings.connect_timeout)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Disconnect. Requests in flight end with `ConnectionLostError`."""
        self._core.transport.close()

    def __enter__(self) -> Self:
        return self.connect()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def listen_to_every_session(self) -> None:
        """Hear the replies of every session through one wildcard subscription, for programs with very many sessions.

        Without it each session costs a subscription.

        Raises:
            BrokerError: the broker refuses the wildcard, or does not answer.
        """
        self._core.transport.listen_to_every_session(
            self._core.addresses.every_reply(), self._core.settings.connect_timeout
        )

    # --- the verbs ---

    def ask(self, message: Message, **options: Unpack[AskOptions]) -> Answer:
        """Ask, and wait for the whole answer.

        Args:
            message: text, or a list of OpenAI content parts.
            **options: see `AskOptions`.

        Raises:
            RequestFailedError: the worker refused the request, or failed.
            RequestTimeoutError: it kept silent for too long.
            BrokerError: the connection is gone.
        """
        exchange = self._core.request(message, options, stream=False)
        return self._finish(exchange, options)

    def stream(self, message: Message, **options: Unpack[AskOptions]) -> Stream:
        """Ask, and iterate over the answer as it is generated. Raises what `ask` raises, while iterating.

        The request is sent when the iteration begins. Breaking it off (leaving the `with`, `close`) cancels it.
        """
        exchange = self._core.request(message, options, stream=True)
        return Stream(self._core, exchange, self._run(exchange, options))

    def cancel(self, session: str | None = None, request_id: str | None = None) -> None:
        """Cancel one request, or whatever the session has queued or running. Whoever waits gets the error."""
        self._core.cancel(session, request_id)

    def reset(self, **options: Unpack[AskOptions]) -> None:
        """Make the worker forget the conversation. Raises what `ask` raises."""
        call = self._core.addresses.reset(options.get("session") or self.session)
        self._finish(self._core.exchange(call, options), options)

    def new_session(self, **options: Unpack[AskOptions]) -> str:
        """Ask the worker for a session id, and go on in that session. Raises what `ask` raises."""
        call = self._core.addresses.new_session()
        self.session = self._finish(self._core.exchange(call, options), options).text
        return self.session

    def workers(self, timeout: float = 2.0) -> dict[str, Presence]:
        """What every worker on this broker last said of itself, by its id, as far as that has come.

        The first call subscribes; what the broker has retained follows within moments.

        Raises:
            BrokerError: the broker does not let this client hear it, or does not answer within `timeout` seconds.
        """
        return self._core.transport.hear_announcements(timeout).presences

    # --- waiting ---

    def _finish(self, exchange: Exchange, options: AskOptions) -> Answer:
        for _delta in self._run(exchange, options):
            pass
        return exchange.result()

    def _run(self, exchange: Exchange, options: AskOptions) -> Generator[Delta, None, None]:
        inbox: SimpleQueue[Event] = SimpleQueue()
        transport, call = self._core.transport, exchange.call
        with self._turn(exchange, options):
            transport.listen(call.reply_topic, exchange.remaining)
            with transport.waiting(call, inbox.put):
                yield from _drive(exchange, inbox, options)

    @contextmanager
    def _turn(self, exchange: Exchange, options: AskOptions) -> Iterator[None]:
        """One request of ours at a time in a session; the worker would refuse a second one."""
        if exchange.call.session is None:
            yield
            return
        with self._locks_guard:
            lock = self._locks.setdefault(exchange.call.session, threading.Lock())
        waited = 0.0 if options.get("when_busy") == "raise" else exchange.remaining
        if not lock.acquire(timeout=waited):
            raise RequestTimeoutError("turn in the session", waited) if waited else session_busy()
        try:
            yield
        finally:
            lock.release()


class Stream:
    """The answer as it comes: an iterator of deltas whose texts join to the whole answer.

    Attributes:
        request_id: for `Client.cancel`.
    """

    def __init__(self, core: ClientCore, exchange: Exchange, deltas: Generator[Delta, None, None]) -> None:
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

    def cancel(self) -> None:
        """Ask the worker to stop; the iteration then ends with `RequestCancelledError`."""
        self._core.cancel(self._exchange.call.session, self.request_id)

    def close(self) -> None:
        """Break off: cancel what still runs, and wait no longer."""
        self._deltas.close()

    def __iter__(self) -> Iterator[Delta]:
        return self

    def __next__(self) -> Delta:
        return next(self._deltas)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _drive(exchange: Exchange, inbox: SimpleQueue[Event], options: AskOptions) -> Generator[Delta, None, None]:
    """Do an exchange's waiting in this thread."""
    with closing(exchange.steps()) as steps:
        event: Event | None = None
        while (step := next_step(steps, event)) is not None:
            event = None
            announce(step, options)
            if isinstance(step, Pause):
                time.sleep(step.seconds)
            elif isinstance(step, Receive):
                event = _receive(inbox, step.seconds)
            elif isinstance(step, Delta):
                yield step


def _receive(inbox: SimpleQueue[Event], seconds: float) -> Event | None:
    try:
        return inbox.get(timeout=seconds)
    except Empty:
        return None
