"""paho's client, reading and writing in larger pieces.

paho asks the system for one byte, then for the length's bytes, then for the rest, and selects before every packet: five
system calls a message, each of which also lets go of the interpreter's lock and has to win it back. Here what has
arrived is read at once, up to a page, and handled before the next select. In the same way packets are collected, and
written together by `flush`: a system call for each would hand the lock to another thread with every reply.

Messages (PUBLISH) are read without paho, since strangers write them: see `publish_packet` for what they can do to it.
All other packets are the broker's own word, and paho's to read.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any, Final

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion

from inferbus_client.mqtt import plain_publish, publish_packet
from inferbus_client.mqtt.message import Incoming, Packed
from inferbus_client.mqtt.publish_packet import UnreadableMessageError
from inferbus_client.mqtt.publish_reader import BrokenStreamError, PublishReader

# One read's worth: some forty requests, so that what is to be written never waits long for what is being read.
_READ_BYTES: Final = 4096
# One read's worth of a message that is longer than that.
_READ_LARGE_BYTES: Final = 65536
# Packets are collected up to this much; a larger one is written by itself.
_WRITE_BYTES: Final = 16384


class BufferedPaho(Client):
    """`paho.mqtt.client.Client` with buffers. Only the network thread touches them.

    Args:
        max_incoming_bytes: what is kept of a message's packet.
        *args: paho's.
        **more: likewise.
    """

    def __init__(self, *args: Any, max_incoming_bytes: int = plain_publish.LARGEST, **more: Any) -> None:
        super().__init__(*args, **more)
        self._page = b""
        self._read_to = 0
        self._unsent = bytearray()
        self._reader = PublishReader(max_incoming_bytes)
        self._half_received: set[int] = set()
        #: Told of every message; paho's `on_message` hears of none.
        self.on_arrival: Callable[[Incoming], None] = lambda _message: None
        #: Told why a message was dropped: one whose packet is not legal.
        self.on_unreadable: Callable[[str], None] = lambda _why: None
        #: Why TLS ended the connection, if it did: with TLS 1.3 the broker refuses a client's certificate after the
        #: handshake.
        self.tls_error: ssl.SSLError | None = None

    def reconnect(self) -> MQTTErrorCode:
        # What an old connection had left to say means nothing on a new one, nor does what we had left to say.
        self._page, self._read_to = b"", 0
        self._unsent.clear()
        self._reader.clear()
        self._half_received.clear()
        self.tls_error = None
        return super().reconnect()

    @property
    def is_v5(self) -> bool:
        return self.protocol == MQTTProtocolVersion.MQTTv5

    # --- reading ---

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:  # noqa: ARG002 - paho's, which ignores it too
        """Handle what is there to read, and all that was read with it: select would not see that any more."""
        if not self._turn_page():
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
        while self._has_unread:
            self._read_plain_messages()
            if self._has_unread and (failure := self._read_packet()) > 0:
                return self._loop_rc_handle(failure)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    @property
    def _has_unread(self) -> bool:
        return self._read_to < len(self._page)

    def _turn_page(self) -> bool:
        """Read what has arrived, up to a page; False where the connection is lost."""
        size = max(_READ_BYTES, min(self._reader.missing, _READ_LARGE_BYTES))
        try:
            self._page, self._read_to = self._receive(size), 0
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(self._page)

    def _read_plain_messages(self) -> None:
        """Hand on the everyday messages that come next on the page, between two other packets."""
        heard, page = self.on_arrival, self._page
        if self._in_packet["command"] or self._reader.under_way or not self.is_v5:
            return
        while self._read_to < len(page) and (plain := plain_publish.decode(page, self._read_to)) is not None:
            message, self._read_to = plain
            heard(message)

    def _read_packet(self) -> MQTTErrorCode:
        """Read what there is of the next packet on the page, or of the one that has begun before it."""
        if self._sock is None:  # the packet before said that the connection ends
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        of_paho = not plain_publish.is_publish(self._page[self._read_to])
        if self._in_packet["command"] or (of_paho and not self._reader.under_way):
            return super()._packet_read()
        try:
            whole, self._read_to = self._reader.take(self._page, self._read_to)
        except BrokenStreamError:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        return self._message_arrived() if whole else MQTTErrorCode.MQTT_ERR_AGAIN

    def _message_arrived(self) -> MQTTErrorCode:
        """Hand on the message that the reader holds, or drop it; acknowledge it where nobody else will."""
        first, body, message = self._reader.first or 0, self._reader.body, self._decode()
        qos, packet_id = publish_packet.qos_of(first), publish_packet.packet_id(first, body)
        self._reader.clear()
        if qos == 2:  # noqa: PLR2004 - "exactly once": nobody here subscribes so
            return self._half_arrived(message, packet_id)
        if message is not None:
            self.on_arrival(message)
        if qos == 1 and packet_id and (message is None or not self._manual_ack):
            return self._send_puback(packet_id)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _decode(self) -> Incoming | None:
        """The message that the reader holds; None where it is to be dropped."""
        reader = self._reader
        try:
            return publish_packet.decode(reader.first or 0, reader.body, v5=self.is_v5, cut=reader.cut)
        except UnreadableMessageError as error:
            self.on_unreadable(str(error))
            return None

    def _half_arrived(self, message: Incoming | None, packet_id: int) -> MQTTErrorCode:
        """A message at QoS 2 is handed on when it comes, and only once until the broker lets go of its identifier."""
        if message is not None and packet_id not in self._half_received:
            self._half_received.add(packet_id)
            self.on_arrival(message._replace(qos=0))  # we do what is left of its acknowledgement
        return self._send_pubrec(packet_id)

    def _handle_pubrel(self) -> MQTTErrorCode:
        packet_id = int.from_bytes(self._in_packet["packet"][:2], "big")
        self._half_received.discard(packet_id)
        return self._send_pubcomp(packet_id)

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._has_unread:
            taken = self._page[self._read_to : self._read_to + bufsize]
            self._read_to += len(taken)
            return taken
        return self._receive(bufsize)

    def _receive(self, size: int) -> bytes:
        try:
            data = super()._sock_recv(size)
        except ssl.SSLError as error:
            self.tls_error = error
            raise
        self._last_bytes_received = time.monotonic()  # paho's keepalive asks for it
        return data

    # --- writing ---

    def abandon(self) -> None:
        """Close the connection without a word; left to the garbage collector, the socket may go before us."""
        self._unsent.clear()
        self._sock_close()

    @property
    def has_room(self) -> bool:
        """Whether another packet would be taken now."""
        return len(self._unsent) < _WRITE_BYTES and not super().want_write()

    def want_write(self) -> bool:
        return bool(self._unsent) or super().want_write()

    def flush(self) -> bool:
        """Write what has been collected, as far as the socket takes it; False where the connection is lost."""
        if super().want_write() and self.loop_write():
            return False
        return self._send_collected()

    def publish_plain(self, topic: str, payload: bytes, properties: Packed | None) -> bool:
        """Send a message of QoS 0 past paho's queue; False where it waits for what is queued there, or is no MQTT 5."""
        if self._sock is None or super().want_write() or not self.is_v5:
            return False
        # paho does not see this traffic, and pings the broker once every keepalive as if there were none.
        self._unsent += plain_publish.encode(topic.encode(), payload, properties.pack() if properties else b"\0")
        return True

    def _send_collected(self) -> bool:
        try:
            while self._unsent:
                sent = super()._sock_send(self._unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def _sock_send(self, buf: bytes | bytearray) -> int:
        if len(self._unsent) >= _WRITE_BYTES:
            raise BlockingIOError
        self._unsent += buf
        return len(buf)

    def _sock_close(self) -> None:
        if self._sock is not None:
            self._send_collected()  # a DISCONNECT, most likely
        super()._sock_close()
