"""A `PahoClient` without a broker: a test says what arrives, and sees what leaves."""

from __future__ import annotations

import socket
from typing import Any

from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion

from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.message import Incoming
from inferbus_client.mqtt.options import LinkOptions
from inferbus_client.mqtt.paho_client import PahoClient
from inferbus_client.mqtt.paho_setup import build_paho


class Ear:
    """A `PahoClient` on one end of a socket pair, what it hears, and why it drops what it drops."""

    def __init__(self, protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5, **more: Any) -> None:
        self.wire, ours = socket.socketpair()
        ours.setblocking(False)
        self.options = LinkOptions(BrokerUrl.parse("mqtt://localhost"), "ear", **more)
        self.paho: PahoClient = build_paho(self.options, protocol, None)
        self.paho._sock = ours
        self.heard: list[Incoming] = []
        self.paho.on_arrival = self.heard.append
        self.dropped: list[str] = []
        self.paho.on_unreadable = self.dropped.append

    def read(self, data: bytes) -> None:
        """Have it read all of this, a page at a time."""
        for start in range(0, len(data), 4096):
            self.wire.sendall(data[start : start + 4096])
            assert self.paho.loop_read() == MQTTErrorCode.MQTT_ERR_SUCCESS

    def said(self) -> bytes:
        """What it has to say now; at least one byte."""
        assert self.paho.flush()
        return self.wire.recv(4096)

    def close(self) -> None:
        self.paho.on_disconnect = None
        self.paho._sock_close()
        self.wire.close()
