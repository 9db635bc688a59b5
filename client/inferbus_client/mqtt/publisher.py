"""How messages leave a link: through the network thread, which alone writes to the socket."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Unpack, cast

from paho.mqtt.enums import MQTTErrorCode

from inferbus_client.mqtt.connection import Connection
from inferbus_client.mqtt.crossing import REFUSED, SENT, Crossing
from inferbus_client.mqtt.message import Handle, PublishOptions
from inferbus_client.mqtt.network_loop import Feed, NetworkLoop
from inferbus_client.mqtt.paho_client import PahoClient
from inferbus_client.mqtt.suspicion import Parcel


class Publisher:
    """Publishes over a connection, whichever it is. `Link` is one.

    `publish`, `call` and `wake` may be used from any thread, `send` and `acknowledge` belong to the network thread.
    """

    def __init__(self, connection: Connection, loop: NetworkLoop, crossing: Crossing) -> None:
        self._connection = connection
        self._loop = loop
        self._crossing = crossing

    # --- what is known of the connection ---

    @property
    def is_up(self) -> bool:
        return self._connection.up.is_set()

    def wait_up(self, timeout: float | None) -> bool:
        return self._connection.up.wait(timeout)

    @property
    def is_v5(self) -> bool:
        return self._connection.is_v5

    @property
    def max_packet_size(self) -> int | None:
        """Bytes that the broker takes in one packet; None where there is no bound but the packet's own."""
        return self._connection.max_packet_size

    @property
    def receive_maximum(self) -> int:
        """How many unacknowledged QoS 1 messages the broker takes at once."""
        return self._connection.receive_maximum

    @property
    def session_present(self) -> bool:
        """Whether the broker has kept what it knew of us since the connection before (`LinkOptions.session_expiry`)."""
        return self._connection.session_present

    @property
    def shares(self) -> bool:
        """Whether the broker has shared subscriptions, as far as it says: one that speaks MQTT 3.1.1 does not."""
        return self._connection.shares

    @property
    def has_room(self) -> bool:
        """Whether the socket has taken everything so far."""
        return self._is_serving() and self._connection.paho is not None and self._connection.paho.has_room

    @property
    def is_drained(self) -> bool:
        """Whether everything sent so far has been written."""
        return self.is_up and self._connection.paho is not None and not self._connection.paho.want_write()

    def _is_serving(self) -> bool:
        """Whether packets go as they come."""
        return self.is_up and self._crossing.is_open

    # --- from any thread ---

    def publish(self, topic: str, payload: bytes, **options: Unpack[PublishOptions]) -> bool:
        """Have the network thread `send` a message.

        Returns:
            Whether it was taken: QoS 0 needs a connection, QoS 1 waits for one.
        """
        if not self.is_up and not options.get("qos", 0):
            return False
        self._loop.call(partial(self.send, topic, payload, **options))
        return True

    def feed_from(self, feed: Feed) -> None:
        """Ask `feed` for messages whenever there is room; `wake` says that it has new ones."""
        self._loop.feed = feed

    def wake(self) -> None:
        self._loop.wake()

    def call(self, wish: Callable[[], object]) -> None:
        """Let the network thread do something, between two messages."""
        self._loop.call(wish)

    # --- in the network thread ---

    def send(self, topic: str, payload: bytes, **options: Unpack[PublishOptions]) -> Handle | None:
        """Publish a message, straight to the socket.

        Returns:
            What knows when a QoS 1 message was acknowledged, on this connection or, sent again, on a later one; None
            where it was not taken, for want of a connection or of an identifier.
        """
        paho = self._connection.paho
        if paho is None:
            return None
        size, alert = len(topic) + len(payload), self._crossing.suspicion.is_alert
        qos, on_refused = options.get("qos", 0), options.get("on_refused")
        if alert and self._crossing.refuses(Parcel(topic, size), on_refused):
            return REFUSED
        packet_id, handle = _write(paho, topic, payload, options)
        if handle is None:
            return None
        if not qos:
            self._crossing.suspicion.wrote(topic, size)
        if qos or alert:
            self._crossing.sent(packet_id, Parcel(topic, size), on_refused)
        return handle

    def acknowledge(self, ack_id: int) -> None:
        """Acknowledge a QoS 1 message to the broker, where `LinkOptions.manual_ack` left that to us.

        From the network thread, behind what was sent before: where the connection breaks, its answer and the
        acknowledgement are lost together. Put off, it could leave on the next connection, and nobody would answer.
        """
        if self._connection.paho is not None:
            self._connection.paho.ack(ack_id, 1)


def _write(paho: PahoClient, topic: str, payload: bytes, options: PublishOptions) -> tuple[int, Handle | None]:
    """The message's packet id, 0 at QoS 0, and what becomes of it; None where paho does not take it."""
    qos, retain, properties = options.get("qos", 0), options.get("retain", False), options.get("properties")
    if not qos and not retain and paho.publish_plain(topic, payload, properties):
        return 0, SENT
    # paho's type is its own `Properties`; all that it asks of one is `pack`.
    info = paho.publish(topic, payload, qos, retain, cast(Any, properties) if paho.is_v5 else None)
    if not qos:
        return 0, None if info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN else info
    if info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
        return 0, None
    # paho keeps it, and sends it on the next connection if it is not acknowledged on this one; but with this code its
    # handle would call it lost for good.
    info.rc = MQTTErrorCode.MQTT_ERR_SUCCESS
    return info.mid, info
