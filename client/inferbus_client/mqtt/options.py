"""What a link is told: where the broker is, whom to trust, who we are."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from paho.mqtt.enums import MQTTProtocolVersion

from inferbus_client.mqtt.broker_url import BrokerUrl


@dataclass(frozen=True, slots=True)
class Tls:
    """Whom to trust, and who we are. Without `ca_file` the system's certificate authorities are trusted."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @property
    def missing(self) -> str:
        """Which of the files is not there, and what it was to be: ssl does not say."""
        files = (("cafile", self.ca_file), ("cert", self.cert_file), ("key", self.key_file))
        return ", ".join(f"{file} ({name})" for name, file in files if file is not None and not file.exists())

    def context(self) -> ssl.SSLContext:
        """A context that verifies the broker's certificate and name, always."""
        context = ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
        if self.cert_file is not None:
            context.load_cert_chain(str(self.cert_file), None if self.key_file is None else str(self.key_file))
        return context


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How to reach the broker. Times are seconds.

    Attributes:
        url: where it is.
        others: further brokers: they are tried in turn, after `url`, whenever a connection is wanted.
        max_incoming_bytes: what is kept of a message; a longer one is cut off while it comes (`Incoming.cut`). The
            broker is not asked to withhold it (MQTT 5's Maximum Packet Size): Mosquitto up to 2.1 never gives back the
            place that such a message takes among those it has under way, and after twenty of them sends nothing.
        own_window: whoever sends keeps to `Link.receive_maximum` himself; else no more than 20 QoS 1 messages are in
            flight, and the rest waits in here.
        max_packet_bytes: the largest packet that the broker takes, where it cannot say so itself.
    """

    url: BrokerUrl
    client_id: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls = Tls()
    keepalive: int = 30
    protocol: MQTTProtocolVersion | None = None
    reconnect_max: int = 5
    session_expiry: int = 0
    receive_maximum: int | None = None
    manual_ack: bool = False
    max_incoming_bytes: int = 16 * 1024 * 1024
    own_window: bool = False
    max_packet_bytes: int | None = None
    others: tuple[BrokerUrl, ...] = ()

    @property
    def urls(self) -> tuple[BrokerUrl, ...]:
        """All of them, in the order in which they are tried."""
        return (self.url, *self.others)

    @property
    def persistent(self) -> bool:
        """Whether the broker keeps subscriptions and queued messages while this link is away."""
        return self.session_expiry > 0


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when this link dies."""

    topic: str
    payload: bytes
    qos: int = 1
