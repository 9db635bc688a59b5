"""A bare paho client with a login, which notes what the broker grants it and what it hears."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from support.bare_paho import leave
from support.waiting import until

WORKER_ID: Final = "inferbus-worker-w1"

Listener = Literal["users", "workers"]

_TIMEOUT: Final = 60.0


@dataclass(frozen=True)
class Site:
    """A broker as its users know it: where its listeners are, whom to trust, and everybody's password."""

    host: str
    users_port: int
    workers_port: int
    cafile: Path | None = None
    passwords: dict[str, str] = field(default_factory=dict)

    def port(self, listener: Listener) -> int:
        return self.users_port if listener == "users" else self.workers_port


class Peer:
    """A context manager: inside the `with` it is connected, or `refusal` says why not. It never connects again.

    Args:
        site: where, and with which password.
        login: as whom.
        client_id: what it claims to be.
        listener: which of the site's.
        protocol: MQTT 5 unless said otherwise.
        will: topic of a Last Will, retained, with the payload `will`.
        session_expiry: seconds that the broker keeps its session (MQTT 5).
    """

    def __init__(
        self,
        site: Site,
        login: str,
        *,
        client_id: str = "",
        listener: Listener = "users",
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5,
        will: str | None = None,
        session_expiry: int = 0,
    ) -> None:
        self.heard: list[tuple[str, str]] = []
        self.refusal: str | None = None
        self.losses = 0
        self.had_session = False
        self._address = (site.host, site.port(listener))
        self._session_expiry = session_expiry
        self._answered = threading.Event()
        self._grants: dict[int, bool] = {}
        self._paho = PahoClient(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol, reconnect_on_failure=False
        )
        self._paho.username_pw_set(login, site.passwords.get(login))
        if site.cafile is not None:
            self._paho.tls_set_context(ssl.create_default_context(cafile=str(site.cafile)))
        if will is not None:
            self._paho.will_set(will, "will", qos=1, retain=True)
        self._paho.on_connect = self._connected
        self._paho.on_disconnect = self._disconnected
        self._paho.on_subscribe = self._subscribed
        self._paho.on_message = self._received

    def __enter__(self) -> Self:
        options: dict[str, Any] = {}
        if self._paho.protocol == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = self._session_expiry
            options = {"clean_start": not self._session_expiry, "properties": properties}
        self._paho.connect(*self._address, **options)
        self._paho.loop_start()
        assert self._answered.wait(_TIMEOUT), "the broker did not answer"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        leave(self._paho)

    def subscribe(self, *filters: str) -> bool:
        """Whether the broker granted all of them."""
        _, mid = self._paho.subscribe([(name, 1) for name in filters])
        assert mid is not None
        until(lambda: mid in self._grants or self.losses, _TIMEOUT)
        return self._grants.get(mid, False)

    def publish(self, topic: str, payload: str, *, retain: bool = False) -> None:
        """Publish, and wait until the broker has dealt with it; whether it passed it on is not known."""
        self._paho.publish(topic, payload, qos=1, retain=retain).wait_for_publish(_TIMEOUT)

    def wait_for(self, payload: str) -> list[tuple[str, str]]:
        """What it heard before the first message that says `payload`: the broker keeps the order."""
        until(lambda: payload in [said for _, said in self.heard], _TIMEOUT)
        said = [payload for _, payload in self.heard]
        return self.heard[: said.index(payload)]

    def vanish(self) -> None:
        """Go without a word, so that the broker publishes the Last Will."""
        connection = self._paho.socket()
        assert isinstance(connection, socket.socket)
        connection.shutdown(socket.SHUT_RDWR)
        until(lambda: self.losses, _TIMEOUT)

    def _connected(self, _paho: Any, _user: Any, flags: Any, reason: ReasonCode, _properties: Any) -> None:
        self.refusal = str(reason) if reason.is_failure else None
        self.had_session = flags.session_present
        self._answered.set()

    def _disconnected(self, _paho: Any, _user: Any, _flags: Any, _reason: ReasonCode, _properties: Any) -> None:
        self.losses += 1

    def _subscribed(self, _paho: Any, _user: Any, mid: int, reasons: Sequence[ReasonCode], _properties: Any) -> None:
        self._grants[mid] = not any(reason.is_failure for reason in reasons)

    def _received(self, _paho: Any, _user: Any, message: MQTTMessage) -> None:
        self.heard.append((message.topic, message.payload.decode()))


def worker_peer(site: Site, *, client_id: str = WORKER_ID, session_expiry: int = 0, will: str | None = None) -> Peer:
    """A peer where a worker stands: its login, its listener."""
    return Peer(
        site, "inferbus-worker", client_id=client_id, listener="workers", session_expiry=session_expiry, will=will
    )
