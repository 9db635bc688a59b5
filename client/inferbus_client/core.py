"""What `Client` and `AsyncClient` have in common: everything but the waiting."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from inferbus_client import topics
from inferbus_client.assembly import AnyReply
from inferbus_client.call import Addresses, Call, Message
from inferbus_client.client_settings import ClientSettings
from inferbus_client.exchange import Exchange
from inferbus_client.options import AskOptions, request_fields, terms_of
from inferbus_client.pacing import Pacer
from inferbus_client.settings import SettingsError
from inferbus_client.transport import Transport


class ClientCore:
    """Settings, identity, transport and pacing of one client; makes its exchanges.

    Attributes:
        session: the conversation that is meant where a call names none.
    """

    def __init__(
        self,
        settings: ClientSettings | str | None,
        overrides: Mapping[str, Any],
        on_stray: Callable[[AnyReply], None] | None = None,
    ) -> None:
        self.settings = _settings(settings, overrides)
        self.client_id = self.settings.client_id or f"inferbus-{uuid.uuid4().hex[:12]}"
        self.session = self.settings.session or topics.new_session_id()
        options = self.settings.link_options(self.client_id)
        self.transport = Transport(options, qos=self.settings.qos, on_stray=on_stray)
        self.addresses = Addresses(self.settings.scope, self.client_id)
        self._terms = self.settings.terms()
        self._pacer = Pacer(self.settings.pacing)

    def request(self, message: Message, options: AskOptions, *, stream: bool) -> Exchange:
        session = options.get("session") or self.session
        call = self.addresses.request(message, session, stream=stream, **request_fields(options))
        return self.exchange(call, options)

    def exchange(self, call: Call, options: AskOptions) -> Exchange:
        return Exchange(call, self.transport, terms_of(options, self._terms), self._pacer)

    def cancel(self, session: str | None, request_id: str | None) -> None:
        topic = topics.cancel(self.settings.scope, session or self.session)
        self.transport.publish_cancel(topic, request_id)


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
        return self._core.transport.is_v5

    @property
    def is_connected(self) -> bool:
        """Whether the connection to the broker stands now; one that was lost is repaired by itself."""
        return self._core.transport.is_up

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
