"""A bare paho client that hears topics while a test goes on, and can publish."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties

from support.bare_paho import leave
from support.requester import Where
from support.waiting import PATIENCE, until


@dataclass(frozen=True)
class Heard:
    """One message. `properties` is MQTT 5's, by name."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: dict[str, Any]

    @property
    def text(self) -> str:
        return self.payload.decode()


class Listener:
    """A context manager: inside the `with` every message on the topic filters is in `heard`, in order.

    Args:
        broker: where to listen.
        *filters: topic filters.
        protocol: MQTT 5 unless said otherwise.
    """

    def __init__(
        self, broker: Where, *filters: str, protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5
    ) -> None:
        self.heard: list[Heard] = []
        #: How often it has connected: more than once shows that it was disconnected.
        self.connections = 0
        self._filters = filters
        self._address = (broker.host, broker.port)
        self._subscribed = threading.Event()
        self._paho = PahoClient(CallbackAPIVersion.VERSION2, protocol=protocol)
        self._paho.on_connect = self._connected
        self._paho.on_subscribe = lambda *_: self._subscribed.set()
        self._paho.on_message = self._received
        self._paho.reconnect_delay_set(1, 1)

    def __enter__(self) -> Self:
        self._paho.connect(*self._address)
        self._paho.loop_start()
        assert self._subscribed.wait(PATIENCE), "no subscription was granted"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        leave(self._paho)

    def publish(
        self,
        topic: str,
        payload: str | bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> None:
        """Publish, and wait until the broker has it."""
        self._paho.publish(topic, payload, qos, retain, properties).wait_for_publish(PATIENCE)

    def wait(self, count: int, timeout: float = PATIENCE) -> list[Heard]:
        """The messages so far, once there are at least `count`."""
        until(lambda: len(self.heard) >= count, timeout)
        return list(self.heard)

    def _connected(self, *_: object) -> None:
        self.connections += 1
        if self._filters:
            self._paho.subscribe([(name, 1) for name in self._filters])
        else:
            self._subscribed.set()

    def _received(self, _paho: object, _user: object, message: MQTTMessage) -> None:
        properties: dict[str, Any] = {}
        if message.properties is not None:
            properties = message.properties.json()  # type: ignore[no-untyped-call]
        self.heard.append(Heard(message.topic, bytes(message.payload), message.qos, message.retain, properties))
