"""paho's client as a link needs it: what has not been acknowledged, pings of our own, and sockets that are closed."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Literal

from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import LogLevel, MessageState, MQTTErrorCode

from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.paho_buffers import BufferedPaho
from inferbus_client.mqtt.websocket import PiecewiseWebsocket

paho_log = logging.getLogger("inferbus.paho")

_SENT: Final = {MessageState.MQTT_MS_WAIT_FOR_PUBACK, MessageState.MQTT_MS_WAIT_FOR_PUBREC}


class PahoClient(BufferedPaho):
    """What a link speaks through. For the network thread alone; the arguments are `BufferedPaho`'s."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        #: Told by packet id of every message that the broker has acknowledged; paho's `on_publish` hears of none.
        self.on_acknowledged: Callable[[int], None] = lambda _packet_id: None
        #: Whether the next connection is to keep back what was not acknowledged, for `send_held`.
        self.hold = False
        self._usual_window: int | None = None
        self._pings = self._pongs = 0
        self._half_open: socket.socket | None = None

    def _easy_log(self, level: Any, fmt: str, *args: Any) -> None:
        # paho tells of every packet at debug level; its own way through logging costs more than the packet's decoding.
        if level != LogLevel.MQTT_LOG_DEBUG or paho_log.isEnabledFor(logging.DEBUG):
            super()._easy_log(level, fmt, *args)

    def reconnect(self) -> MQTTErrorCode:
        self._pings = self._pongs = 0
        self._widen()
        return super().reconnect()

    def aim_at(self, url: BrokerUrl) -> None:
        """Where the next connection goes. paho's own setters are for the time before the first one alone."""
        self._sock_close()  # never two at once
        self._host, self._port = url.host, url.port
        if url.websockets:
            self.ws_set_options(path=url.path)

    def set_connect_timeout(self, seconds: float) -> None:
        """How long the next connection may take to open. paho's own setter is for the first one alone."""
        self._connect_timeout = seconds

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
