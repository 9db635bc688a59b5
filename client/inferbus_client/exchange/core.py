"""What `Client` and `AsyncClient` have in common: everything but the waiting."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from inferbus_client.contract import topics
from inferbus_client.errors import ClientClosedError, NotConnectedError, SettingsError
from inferbus_client.exchange.announced import Announced
from inferbus_client.exchange.assembly import AnyReply
from inferbus_client.exchange.call import Addresses, Call, Content, Messages
from inferbus_client.exchange.errand import Errand, hear
from inferbus_client.exchange.exchange import Exchange
from inferbus_client.exchange.options import (
    AskOptions,
    TurnOptions,
    WaitOptions,
    WhenBusy,
    check_options,
    request_fields,
    terms_of,
    trace_of,
)
from inferbus_client.exchange.pacing import Pacer
from inferbus_client.exchange.steps import Deliver, Steps
from inferbus_client.exchange.tools import of_tools
from inferbus_client.exchange.traced import traced
from inferbus_client.exchange.transport import Transport
from inferbus_client.exchange.turns import Turns
from inferbus_client.settings.client import ClientSettings
from inferbus_client.tracing.spans import process_tracer


class ClientCore:
    """Settings, identity, connection, turns and pacing of one client; makes its errands.

    Args:
        settings: the client's.
        overrides: single settings.
        caller: says which thread or task is calling.
        on_stray: hears of replies that nobody waits for.

    Attributes:
        session: the conversation that is meant where a call names none.
    """

    def __init__(
        self,
        settings: ClientSettings | str | None,
        overrides: Mapping[str, Any],
        *,
        caller: Callable[[], object],
        on_stray: Callable[[AnyReply], None] | None = None,
    ) -> None:
        self.settings = _settings(settings, overrides)
        self.caller = caller
        self.client_id = self.settings.client_id or f"inferbus-{uuid.uuid4().hex[:12]}"
        self.session = self.settings.session or topics.new_session_id()
        self._on_stray = on_stray
        self._link_options = self.settings.link_options(self.client_id)
        self._connecting = threading.Lock()
        # Re-entrant, since a signal's handler may close in the midst of it.
        self._lock = threading.RLock()
        self._transport: Transport | None = None
        self._closings = 0
        self._addresses = Addresses(self.settings.scope, self.client_id)
        self._terms = self.settings.terms()
        self._pacer = Pacer(self.settings.pacing)
        self._turns = Turns()
        self._tracer = process_tracer("inferbus-client")

    # --- lifecycle ---

    def connector(self) -> Callable[[], None]:
        """What connects, unless we are connected then; it raises what `Transport.open` raises.

        It may be called in another thread, and later: a `close` that comes in between holds, since whoever wished for
        the connection has gone, and nobody would close it again.
        """
        closings = self._closings
        return lambda: self._connect(closings)

    def _connect(self, closings: int) -> None:
        with self._connecting:
            if self._transport is not None:
                if self._transport.is_open:
                    return
                self._transport.close()
            with self._lock:
                if self._closings != closings:
                    raise ClientClosedError("the client was closed")
                # Every connection has a transport of its own: nothing of an old one lives on.
                transport = Transport(self._link_options, qos=self.settings.qos, on_stray=self._on_stray)
                self._transport = transport
            transport.open(self.settings.connect_timeout)

    def close(self) -> None:
        with self._lock:
            self._closings += 1
            transport = self._transport
        if transport is not None:
            transport.close()

    @property
    def is_v5(self) -> bool:
        return self._transport is not None and self._transport.is_v5

    @property
    def is_connected(self) -> bool:
        return self._transport is not None and self._transport.is_up

    @property
    def is_open(self) -> bool:
        return self._transport is not None and self._transport.is_open

    def hear_announcements(self, timeout: float, *, stats: bool = False, known: Announced | None = None) -> Announced:
        return self._connected.hear_announcements(timeout, stats=stats, known=known)

    def ask_for_stats(self) -> None:
        if self._transport is not None:
            self._transport.ask_for_stats()

    def repeat(self) -> None:
        self._connected.repeat()

    # --- errands ---

    def request(
        self, message: Content | None, options: AskOptions, *, stream: bool, messages: Messages | None = None
    ) -> Errand:
        check_options(options, AskOptions.__annotations__)
        session = options.get("session") or self.session
        fields = request_fields(options) | of_tools(options)
        addresses = self._addresses
        if (project := options.get("project")) is not None:
            addresses = replace(addresses, scope=self.settings.scope_of(project))
        call = addresses.request(message, session, stream=stream, messages=messages, **fields)
        trace = trace_of(options) or (None if self._tracer is None else self._tracer.current())
        return self._errand(call if trace is None else replace(call, trace=trace), options, options.get("when_busy"))

    def reset(self, options: TurnOptions) -> Errand:
        check_options(options, TurnOptions.__annotations__)
        call = self._addresses.reset(options.get("session") or self.session)
        return self._errand(call, options, options.get("when_busy"))

    def new_session(self, options: WaitOptions) -> Errand:
        check_options(options, WaitOptions.__annotations__)
        return self._errand(self._addresses.new_session(), options, None)

    def cancel(self, session: str | None, request_id: str | None) -> None:
        check_options({"session": session, "request_id": request_id}, AskOptions.__annotations__)
        self._connected.publish_cancel(self._addresses.cancel_topic(session or self.session), request_id)

    def cancel_call(self, call: Call) -> None:
        """Cancel one request, wherever it was sent."""
        self._connected.publish_cancel(call.cancel_topic or "", call.request_id)

    def listen_to_every_session(self, deliver: Deliver) -> Steps:
        """One subscription to every reply topic of ours. Raises what `hear` raises."""
        transport, every_reply = self._connected, self._addresses.every_reply()
        until = time.monotonic() + self.settings.connect_timeout
        with transport.attended(deliver):
            yield from hear(transport, every_reply, deliver, lambda: max(until - time.monotonic(), 0.0))
            transport.reply_topics.rely_on(every_reply)

    def _errand(self, call: Call, options: WaitOptions, when_busy: WhenBusy | None) -> Errand:
        terms, transport = terms_of(options, self._terms), self._connected
        exchange = Exchange(call, transport, terms, self._pacer)
        errand = Errand(exchange, transport, self._turns, self.caller(), when_busy)
        if self._tracer is not None:
            errand.run = partial(traced, self._tracer, exchange)
        return errand

    @property
    def _connected(self) -> Transport:
        if self._transport is None:
            raise NotConnectedError("the client is not connected: connect it first, or use it in a with statement")
        self._transport.check()
        return self._transport


class CoreProperties:
    """What both clients show of their core."""

    _core: ClientCore

    @property
    def settings(self) -> ClientSettings:
        return self._core.settings

    @property
    def client_id(self) -> str:
        return self._core.client_id

    @property
    def is_v5(self) -> bool:
        """Whether the broker speaks MQTT 5."""
        return self._core.is_v5

    @property
    def is_connected(self) -> bool:
        """Whether the connection to the broker stands now; one that was lost is repaired by itself."""
        return self._core.is_connected

    @property
    def is_open(self) -> bool:
        """Whether requests can be made, now or when the connection is repaired; else it was given up, or closed."""
        return self._core.is_open

    @property
    def session(self) -> str:
        """The conversation that is meant where a call names none."""
        return self._core.session

    @session.setter
    def session(self, session: str) -> None:
        self._core.session = session


def _settings(settings: ClientSettings | str | None, overrides: Mapping[str, Any]) -> ClientSettings:
    if not isinstance(settings, ClientSettings):
        broker = {} if settings is None else {"broker": settings}
        return ClientSettings.load({**broker, **overrides})
    if overrides:
        raise SettingsError("give either a ClientSettings or single settings, not both")
    return settings
