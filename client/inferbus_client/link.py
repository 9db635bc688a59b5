"""One MQTT connection, used by both wings: TLS, MQTT 5 with a fall-back to 3.1.1, reconnecting, resubscribing.

paho owns one network thread per link (`loop_start`). Its traps, and what this module does about them:

- an exception in a callback kills that thread while `is_connected()` stays true: every callback is wrapped;
- two clients of one id kick each other for ever: the link gives up with the reason (`Link.fatal`);
- subscriptions are lost with the connection: they are remembered, and made again on every connect.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from inferbus_client.errors import (
    BrokerError,
    BrokerRefusedError,
    BrokerUnreachableError,
    ConnectionLostError,
)
from inferbus_client.link_options import Incoming, LinkOptions, Will

log = logging.getLogger("inferbus.link")

_CONNACK_TIMEOUT: Final = 5.0
_RETRY_EVERY: Final = 0.25
_FLAPS: Final = 4
_FLAP_WINDOW: Final = 12.0
_FALLBACK_REASONS: Final = {"Unsupported protocol version", "Protocol error", "Malformed packet"}


class Link:
    """One connection to one broker. `connect`, `subscribe`, `publish`, `close`; callbacks run in paho's thread.

    Args:
        options: how to reach the broker.
        on_message: called for every message; must not block.
        on_up: called after every successful (re)connect, when subscriptions have been requested again.
        on_down: called when the connection is lost.
        on_published: called with the message id when a message was written (QoS 0) or acknowledged (QoS 1). It runs
            under paho's own lock, so it must not call this link.
        will: published by the broker when this link dies.
    """

    def __init__(
        self,
        options: LinkOptions,
        *,
        on_message: Callable[[Incoming], None],
        on_up: Callable[[], None] | None = None,
        on_down: Callable[[], None] | None = None,
        on_published: Callable[[int], None] | None = None,
        will: Will | None = None,
    ) -> None:
        self._options = options
        self._on_message = on_message
        self._on_up = on_up
        self._on_down = on_down
        self._on_published = on_published
        self._will = will
        self._paho: PahoClient | None = None
        self._subscriptions: dict[str, int] = {}
        self._acks: dict[int, Future[None]] = {}
        self._lock = threading.Lock()
        self._connack: Future[None] = Future()
        self._up = threading.Event()
        self._losses: deque[float] = deque(maxlen=_FLAPS)
        self._closing = False
        self.fatal: BrokerError | None = None
        self.max_packet_size: int | None = None

    # --- lifecycle ---

    def connect(self, timeout: float) -> None:
        """Connect, trying again until `timeout` seconds have passed. Later losses are repaired by themselves.

        Raises:
            BrokerUnreachableError: nobody answered in that time.
            BrokerRefusedError: the broker said no, which trying again does not change.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._connect_with_fallback()
            except BrokerUnreachableError:
                if time.monotonic() + _RETRY_EVERY >= deadline:
                    raise
                time.sleep(_RETRY_EVERY)
            else:
                return

    def close(self, timeout: float = 2.0) -> None:
        """Disconnect in order and end the network thread. Never longer than `timeout` seconds."""
        self._closing = True
        if self._paho is not None:
            self._paho.disconnect()
            self._end_network_thread(self._paho, timeout)

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    @property
    def is_v5(self) -> bool:
        return self._paho is not None and self._paho.protocol == MQTTProtocolVersion.MQTTv5

    @property
    def is_alive(self) -> bool:
        """Whether the network thread runs. paho's own `is_connected` stays true when it has died."""
        if self._paho is None:
            return False
        thread = self._paho._thread  # noqa: SLF001 - paho offers no other way to see it
        return thread is not None and thread.is_alive()

    def wait_up(self, timeout: float | None) -> bool:
        return self._up.wait(timeout)

    # --- messages ---

    def subscribe(self, filters: Mapping[str, int], timeout: float = 10.0) -> None:
        """Subscribe now and after every reconnect; returns when the broker granted it.

        Args:
            filters: topic filter to QoS.
            timeout: seconds to wait for the broker's answer.

        Raises:
            BrokerRefusedError: a filter was refused.
            ConnectionLostError: no answer came in time.
        """
        self._subscriptions.update(filters)
        granted = self._request_subscriptions(filters)
        try:
            granted.result(timeout)
        except TimeoutError:
            raise ConnectionLostError(f"the broker did not answer a subscription within {timeout:g} s") from None

    def unsubscribe(self, topic_filter: str) -> None:
        """Unsubscribe, without waiting for the broker."""
        self._subscriptions.pop(topic_filter, None)
        if self._paho is not None:
            self._paho.unsubscribe(topic_filter)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> int | None:
        """Hand a message to the network thread.

        Returns:
            The message id that `on_published` will name; None where there is no connection and the message was
            not taken (QoS 0 only: a QoS 1 message waits inside for the next connection).
        """
        if self._paho is None:
            return None
        info = self._paho.publish(topic, payload, qos, retain, properties if self.is_v5 else None)
        lost = info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN and qos == 0
        return None if lost or info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE else info.mid

    def acknowledge(self, message: Incoming) -> None:
        """Acknowledge a message to the broker, where `LinkOptions.manual_ack` left that to us."""
        if self._options.manual_ack and message.qos and self._paho is not None:
            self._paho.ack(message.ack_id, message.qos)

    # --- connecting ---

    def _connect_with_fallback(self) -> None:
        """MQTT 5 first. A broker that refuses it, in words or by closing the connection, gets 3.1.1."""
        if self._options.protocol is not None:
            self._attempt(self._options.protocol)
            return
        try:
            self._attempt(MQTTProtocolVersion.MQTTv5)
        except _ProtocolRefusedError as refusal:
            log.info("the broker speaks no MQTT 5 (%s); using MQTT 3.1.1", refusal.reason)
            self._attempt(MQTTProtocolVersion.MQTTv311)

    def _attempt(self, protocol: MQTTProtocolVersion) -> None:
        paho = self._build(protocol)
        self._connack = Future()
        self._paho = paho
        try:
            self._open(paho)
            paho.loop_start()
            self._connack.result(_CONNACK_TIMEOUT)
        except TimeoutError:
            self._abandon(paho)
            raise BrokerUnreachableError(f"{self._options.url} accepts connections but does not speak MQTT") from None
        except BrokerError:
            self._abandon(paho)
            raise

    def _open(self, paho: PahoClient) -> None:
        url = self._options.url
        try:
            if self._options.url.tls:
                paho.tls_set_context(self._options.tls.context())
            self._paho_connect(paho)
        except ssl.SSLError as error:
            raise BrokerRefusedError(f"TLS with {url} failed: {error.reason or error}") from None
        except FileNotFoundError as error:
            raise BrokerRefusedError(f"cannot read the TLS file {error.filename}") from None
        except (OSError, ValueError) as error:
            raise BrokerUnreachableError(f"cannot reach the broker at {url}: {_in_words(error)}") from None

    def _paho_connect(self, paho: PahoClient) -> None:
        url, options = self._options.url, self._options
        if paho.protocol != MQTTProtocolVersion.MQTTv5:
            paho.connect(url.host, url.port, options.keepalive)
            return
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        if options.persistent:
            properties.SessionExpiryInterval = options.session_expiry
        if options.receive_maximum is not None:
            properties.ReceiveMaximum = options.receive_maximum
        paho.connect(url.host, url.port, options.keepalive, clean_start=not options.persistent, properties=properties)

    def _build(self, protocol: MQTTProtocolVersion) -> PahoClient:
        options, url = self._options, self._options.url
        extra: dict[str, Any] = {}
        if protocol != MQTTProtocolVersion.MQTTv5:
            extra["clean_session"] = not options.persistent
        paho = PahoClient(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            protocol=protocol,
            transport="websockets" if url.websockets else "tcp",
            manual_ack=options.manual_ack,
            reconnect_on_failure=True,
            **extra,
        )
        if url.websockets:
            paho.ws_set_options(path=url.path)
        username = options.username or url.username
        if username is not None:
            paho.username_pw_set(username, options.password)
        if self._will is not None:
            paho.will_set(self._will.topic, self._will.payload, self._will.qos, retain=True)
        paho.reconnect_delay_set(1, options.reconnect_max)
        paho.suppress_exceptions = True
        paho.enable_logger(logging.getLogger("inferbus.paho"))
        paho.on_connect = self._connected
        paho.on_disconnect = self._disconnected
        paho.on_subscribe = self._subscribed
        paho.on_message = self._received
        if self._on_published is not None:
            paho.on_publish = self._published
        return paho

    def _abandon(self, paho: PahoClient) -> None:
        self._paho = None
        paho.on_disconnect = None
        paho.disconnect()
        self._end_network_thread(paho, 1.0)

    def _end_network_thread(self, paho: PahoClient, timeout: float) -> None:
        """Like `loop_stop`, which blocks for ever on a QoS 1 message that nobody acknowledges."""
        paho._thread_terminate = True  # noqa: SLF001 - the flag that loop_stop sets before it joins
        thread = paho._thread  # noqa: SLF001
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    # --- paho's callbacks; all run in its network thread ---

    def _connected(self, paho: PahoClient, _user: Any, _flags: Any, reason: ReasonCode, properties: Any) -> None:
        if paho is not self._paho:
            return
        if reason.is_failure:
            self._refused(str(reason))
            return
        self.max_packet_size = getattr(properties, "MaximumPacketSize", None)
        if self._subscriptions:
            self._request_subscriptions(self._subscriptions)
        self._up.set()
        if not self._connack.done():
            self._connack.set_result(None)
        self._call(self._on_up)

    def _refused(self, reason: str) -> None:
        refusal: BrokerError
        if reason in _FALLBACK_REASONS:
            refusal = _ProtocolRefusedError(reason)
        else:
            refusal = BrokerRefusedError(f"the broker at {self._options.url} refused us: {reason}")
        if not self._connack.done():
            self._connack.set_exception(refusal)
        else:
            log.warning("reconnect refused by the broker: %s", reason)

    def _disconnected(self, paho: PahoClient, _user: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if paho is not self._paho:
            return
        was_up = self._up.is_set()
        self._up.clear()
        for granted in self._take_acks():
            granted.set_exception(ConnectionLostError("the connection was lost before the broker answered"))
        if not self._connack.done():
            # RabbitMQ closes the connection without a word when it is spoken to in MQTT 5.
            self._connack.set_exception(_ProtocolRefusedError(f"the broker closed the connection ({reason})"))
        elif not self._closing:
            self._count_loss(paho, str(reason))
        if was_up:
            self._call(self._on_down)

    def _count_loss(self, paho: PahoClient, reason: str) -> None:
        log.warning("connection to the broker lost: %s", reason)
        self._losses.append(time.monotonic())
        flapping = len(self._losses) == _FLAPS and self._losses[-1] - self._losses[0] < _FLAP_WINDOW
        if reason == "Session taken over" or flapping:
            self.fatal = ConnectionLostError(
                f"another client uses the id {self._options.client_id!r} on this broker"
                if not flapping
                else f"the broker drops this connection again and again ({reason}); is the client id "
                f"{self._options.client_id!r} in use twice?"
            )
            log.error("giving up the connection: %s", self.fatal.reason)
            paho._thread_terminate = True  # noqa: SLF001 - the only way to end reconnecting from inside a callback

    def _subscribed(self, _paho: Any, _user: Any, mid: int, reasons: Sequence[ReasonCode], _properties: Any) -> None:
        with self._lock:
            granted = self._acks.pop(mid, None)
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            log.error("the broker refused a subscription: %s", refused[0])
        if granted is None:
            return
        if refused:
            granted.set_exception(BrokerRefusedError(f"the broker refused a subscription: {refused[0]}"))
        else:
            granted.set_result(None)

    def _received(self, _paho: Any, _user: Any, message: MQTTMessage) -> None:
        try:
            self._on_message(_incoming(message))
        except Exception:
            log.exception("a message could not be handled")

    def _published(self, _paho: Any, _user: Any, mid: int, _reason: Any, _properties: Any) -> None:
        if self._on_published is not None:
            self._on_published(mid)

    def _call(self, callback: Callable[[], None] | None) -> None:
        if callback is None:
            return
        try:
            callback()
        except Exception:
            log.exception("a link callback failed")

    # --- subscriptions ---

    def _request_subscriptions(self, filters: Mapping[str, int]) -> Future[None]:
        granted: Future[None] = Future()
        if self._paho is None:
            granted.set_exception(ConnectionLostError("not connected"))
            return granted
        wanted: Any
        if self.is_v5:
            # Retained requests are dropped anyway; asking the broker not to replay them saves the traffic.
            wanted = [(name, SubscribeOptions(qos=qos)) for name, qos in filters.items()]
        else:
            wanted = list(filters.items())
        with self._lock:
            result, mid = self._paho.subscribe(wanted)
            if result == MQTTErrorCode.MQTT_ERR_SUCCESS and mid is not None:
                self._acks[mid] = granted
        if result != MQTTErrorCode.MQTT_ERR_SUCCESS:
            granted.set_exception(ConnectionLostError("not connected"))
        return granted

    def _take_acks(self) -> list[Future[None]]:
        with self._lock:
            waiting, self._acks = list(self._acks.values()), {}
        return waiting


class _ProtocolRefusedError(BrokerRefusedError):
    """The broker does not speak the protocol version that was tried."""


def _incoming(message: MQTTMessage) -> Incoming:
    properties, payload = message.properties, bytes(message.payload)
    if properties is None or properties.isEmpty():  # type: ignore[no-untyped-call]
        return Incoming(message.topic, payload, message.qos, message.retain, message.dup, message.mid)
    return Incoming(
        topic=message.topic,
        payload=payload,
        qos=message.qos,
        retain=message.retain,
        dup=message.dup,
        ack_id=message.mid,
        response_topic=getattr(properties, "ResponseTopic", None),
        correlation_data=getattr(properties, "CorrelationData", None),
        expiry=getattr(properties, "MessageExpiryInterval", None),
        user_properties=tuple(getattr(properties, "UserProperty", ())),
    )


def _in_words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
