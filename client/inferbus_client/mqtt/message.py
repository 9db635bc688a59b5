"""A message as it comes from a link, and how one is given to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypedDict

from inferbus_client.errors import MessageRefusedError


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
