"""paho's client, set up as a link needs it, reading and writing in larger pieces.

paho asks the system for one byte, then for the length's bytes, then for the rest, and selects before every packet: five
system calls a message, each of which also lets go of the interpreter's lock and has to win it back. Here what has
arrived is read at once, up to a page, and handled before the next select. In the same way packets are collected, and
written together by `flush`: a system call for each would hand the lock to another thread with every reply.

Messages (PUBLISH) are read without paho, since strangers write them: see `publish_packet` for what they can do to it.
All other packets are the broker's own word, and paho's to read.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Final, Literal

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MessageState, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from inferbus_client.errors import BrokerRefusedError
from inferbus_client.mqtt import plain_publish, publish_packet
from inferbus_client.mqtt.options import Incoming, LinkOptions, Packed, Will
from inferbus_client.mqtt.publish_packet import UnreadableMessageError
from inferbus_client.mqtt.publish_reader import BrokenStreamError, PublishReader
from inferbus_client.mqtt.websocket import PiecewiseWebsocket

_paho_log = logging.getLogger("inferbus.paho")

# One read's worth: some forty requests, so that what is to be written never waits long for what is being read.
_READ_BYTES: Final = 4096
# One read's worth of a message that is longer than that.
_READ_LARGE_BYTES: Final = 65536
# Packets are collected up to this much; a larger one is written by itself.
_WRITE_BYTES: Final = 16384
_SENT: Final = {MessageState.MQTT_MS_WAIT_FOR_PUBACK, MessageState.MQTT_MS_WAIT_FOR_PUBREC}


class PahoClient(Client):
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
        self._half_open: socket.socket | None = None
        self._reader = PublishReader(max_incoming_bytes)
        self._half_received: set[int] = set()
        #: Told of every message; paho's `on_message` hears of none.
        self.on_arrival: Callable[[Incoming], None] = lambda _message: None
        #: Told why a message was dropped: one whose packet is not legal.
        self.on_unreadable: Callable[[str], None] = lambda _why: None
        #: Told by packet id of every message that the broker has acknowledged; paho's `on_publish` hears of none.
        self.on_acknowledged: Callable[[int], None] = lambda _packet_id: None
        self._pings = self._pongs = 0
        self._usual_window: int | None = None
        #: Whether the next connection is to keep back what was not acknowledged, for `send_held`.
        self.hold = False
        #: Why TLS ended the connection, if it did: with TLS 1.3 the broker refuses a client's certificate after the
        #: handshake.
        self.tls_error: ssl.SSLError | None = None

    def _easy_log(self, level: Any, fmt: str, *args: Any) -> None:
        # paho tells of every packet at debug level; its own way through logging costs more than the packet's decoding.
        if level != LogLevel.MQTT_LOG_DEBUG or _paho_log.isEnabledFor(logging.DEBUG):
            super()._easy_log(level, fmt, *args)

    def reconnect(self) -> MQTTErrorCode:
        # What an old connection had left to say means nothing on a new one, nor does what we had left to say.
        self._page, self._read_to = b"", 0
        self._unsent.clear()
        self._reader.clear()
        self._half_received.clear()
        self.tls_error = None
        self._pings = self._pongs = 0
        self._widen()
        return super().reconnect()

    def allow(self, seconds: float) -> None:
        """How long the next connection may take to open. paho's own setter is for the first one alone."""
        self._connect_timeout = seconds

    def abandon(self) -> None:
        """Close the connection without a word; left to the garbage collector, the socket may go before us."""
        self._unsent.clear()
        self._sock_close()

    # --- what was not acknowledged ---

    @property
    def outstanding(self) -> list[MQTTMessage]:
        """Messages that have a packet id and no acknowledgement, sent or not, in their order."""
        return list(self._out_messages.values())

    @property
    def unacknowledged(self) -> list[MQTTMessage]:
        """Those of them that were sent on this connection."""
        return [message for message in self._out_messages.values() if message.state in _SENT]

    def is_outstanding(self, packet_id: int) -> bool:
        return packet_id in self._out_messages

    def drop(self, packet_id: int) -> None:
        """Send a message no more; its handle says that it has failed."""
        message = self._out_messages.pop(packet_id)
        message.info.rc = MQTTErrorCode.MQTT_ERR_INVAL

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        self.on_acknowledged(int.from_bytes(self._in_packet["packet"][:2], "big"))
        return super()._handle_pubackcomp(cmd)

    def send_held(self, *, one_at_a_time: bool) -> None:
        """Send messages that `hold` has kept back: each when the one before is acknowledged, or as many as usual."""
        if not one_at_a_time:
            self._widen()
        elif self._usual_window is None:
            self._usual_window, self._max_inflight_messages = self._max_inflight_messages, 1
        window = self._max_inflight_messages
        # Where there is no window (0), paho holds nothing back by itself, and so sends nothing that was held back.
        self._max_inflight_messages = window or len(self._out_messages)
        self._update_inflight()
        self._max_inflight_messages = window

    def _widen(self) -> None:
        if self._usual_window is not None:
            self._max_inflight_messages, self._usual_window = self._usual_window, None

    def _messages_reconnect_reset_out(self) -> None:
        super()._messages_reconnect_reset_out()
        if self.hold:
            for message in self._out_messages.values():
                if message.state == MessageState.MQTT_MS_PUBLISH:
                    message.state = MessageState.MQTT_MS_QUEUED

    # --- pings ---

    def ping(self) -> None:
        """Ask the broker for a sign of life: it comes when everything that was sent before has been handled."""
        self._send_pingreq()

    @property
    def is_ping_answered(self) -> bool:
        return self._pongs >= self._pings

    def _send_pingreq(self) -> MQTTErrorCode:
        self._pings += 1
        return super()._send_pingreq()

    def _handle_pingresp(self) -> MQTTErrorCode:
        self._pongs += 1
        return super()._handle_pingresp()

    # --- reading and writing ---

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
    def is_v5(self) -> bool:
        return self.protocol == MQTTProtocolVersion.MQTTv5

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

    # paho leaves the socket of a handshake that failed (TLS, WebSocket) to the garbage collector.

    def _create_socket(self) -> Any:
        try:
            connection: Any = super()._create_socket()
        except BaseException:
            if self._half_open is not None:
                self._half_open.close()
            raise
        finally:
            self._half_open = None
        return PiecewiseWebsocket(connection) if self._transport == "websockets" else connection

    def _create_socket_connection(self) -> socket.socket:
        self._half_open = super()._create_socket_connection()
        return self._half_open

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        assert self._ssl_context is not None  # noqa: S101 - paho asks only where there is one
        connection = self._ssl_context.wrap_socket(tcp_sock, server_hostname=self._host, do_handshake_on_connect=False)
        self._half_open = connection
        connection.settimeout(self._connect_timeout)
        connection.do_handshake()
        return connection


def build_paho(options: LinkOptions, protocol: MQTTProtocolVersion, will: Will | None) -> PahoClient:
    """A client that is set up and not yet connected."""
    url = options.url
    extra: dict[str, Any] = {}
    if protocol != MQTTProtocolVersion.MQTTv5:
        extra["clean_session"] = not options.persistent
    paho = PahoClient(
        CallbackAPIVersion.VERSION2,
        client_id=options.client_id,
        protocol=protocol,
        transport="websockets" if url.websockets else "tcp",
        manual_ack=options.manual_ack,
        max_incoming_bytes=options.max_incoming_bytes,
        reconnect_on_failure=False,
        **extra,
    )
    if url.websockets:
        paho.ws_set_options(path=url.path)
    username = options.username or url.username
    if username is not None:
        paho.username_pw_set(username, options.password)
    if will is not None:
        paho.will_set(will.topic, will.payload, will.qos, retain=True)
    if options.own_window:
        paho.max_inflight_messages_set(0)
    paho.suppress_exceptions = True
    paho.enable_logger(_paho_log)
    return paho


def open_connection(paho: PahoClient, options: LinkOptions) -> None:
    """Open the socket and send CONNECT.

    Raises:
        OSError: as the system says it; `ssl.SSLError` among them.
        BrokerRefusedError: a TLS file cannot be read.
    """
    url = options.url
    if url.tls:
        try:
            paho.tls_set_context(options.tls.context())
        except FileNotFoundError:
            raise BrokerRefusedError(f"there is no file {options.tls.missing}") from None
    if paho.protocol != MQTTProtocolVersion.MQTTv5:
        paho.connect(url.host, url.port, options.keepalive)
        return
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    if options.persistent:
        properties.SessionExpiryInterval = options.session_expiry
    if options.receive_maximum is not None:
        properties.ReceiveMaximum = options.receive_maximum
    paho.connect(url.host, url.port, options.keepalive, clean_start=not options.persistent, properties=properties)
