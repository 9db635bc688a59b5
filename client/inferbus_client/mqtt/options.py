"""What a link is told (where the broker is, whom to trust, who we are), and what it hands over."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypedDict

from paho.mqtt.enums import MQTTProtocolVersion

from inferbus_client.errors import MessageRefusedError
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


class Incoming(NamedTuple):
    """A message as it arrived. What follows `ack_id`, which is for `Link.acknowledge`, needs MQTT 5.

    `cut` says that it was too long, and is only the beginning.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    ack_id: int = 0
    cut: bool = False
    response_topic: str | None = None
    correlation_data: bytes | None = None
    expiry: int | None = None
    user_properties: Sequence[tuple[str, str]] = ()


class Packed(Protocol):
    """MQTT 5 properties, as paho's `Properties` or anything else that can say them in bytes."""

    def pack(self) -> bytes:
        """Their encoding, with its length before it."""
        ...


#: Who hears, in the network thread, that his message will not be sent.
OnRefused = Callable[[MessageRefusedError], None]


class PublishOptions(TypedDict, total=False):
    """How a message is published.

    Keys:
        qos: 0, or 1; 0 where nothing is said.
        retain: whether the broker keeps it for later subscribers.
        properties: MQTT 5 properties; left out where the link speaks 3.1.1.
        on_refused: called if the broker closes the connection on this message, which then is not sent again.
    """

    qos: int
    retain: bool
    properties: Packed | None
    on_refused: OnRefused | None


class Handle(Protocol):
    """What has become of a message that was sent."""

    def is_published(self) -> bool:
        """Whether QoS 0 has been written, or QoS 1 acknowledged.

        Raises:
            RuntimeError, ValueError: it never will be: the connection is gone.
        """
        ...
