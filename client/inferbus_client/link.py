"""One MQTT connection, used by both wings: TLS, MQTT 5 with a fall-back to 3.1.1, reconnecting, resubscribing.

Each link owns one thread, `network-<client id>`, which alone touches the socket (see `network_loop`). Its life reads in
`_run`: serve the connection until it is lost, connect anew, and so on until `close`. What goes wrong in a callback is
logged and ends nothing. Two clients of one id would kick each other for ever: then the link gives up, and `fatal` says
why, unless its user knows better (`holds_out`). Subscriptions are lost with a connection: they are remembered, and made
again on every new one.
"""

from __future__ import annotations

import logging
import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, cast

from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from inferbus_client.errors import (
    BrokerError,
    BrokerRefusedError,
    BrokerUnreachableError,
    ConnectionLostError,
    IdTakenError,
)
from inferbus_client.incoming import incoming
from inferbus_client.link_options import Handle, Incoming, LinkOptions, Packed, Will
from inferbus_client.link_socket import send_at_once
from inferbus_client.network_loop import Feed, NetworkLoop
from inferbus_client.paho_client import PahoClient, build_paho, open_connection
from inferbus_client.subscriptions import Subscriptions

log = logging.getLogger("inferbus.link")

#: The longest wait for a broker's answer to CONNECT.
_CONNACK_TIMEOUT: Final = 5.0
_RETRY_EVERY: Final = 0.25
_FLAPS: Final = 4
_FLAP_WINDOW: Final = 15.0
_FALLBACK_REASONS: Final = {"Unsupported protocol version", "Protocol error", "Malformed packet"}


class Link:
    """One connection to one broker. `connect`, `subscribe`, `publish`, `close`.

    Args:
        options: how to reach the broker.
        on_message: called in the network thread for every message; must not block.
        on_up: called there after every successful (re)connect, when subscriptions have been requested again.
        on_down: called there when the connection is lost.
        will: published by the broker when this link dies.
        holds_out: asked there, instead of giving up, when another client seems to have our id: whether to come back all
            the same. It is told whether connections were lost again and again, or once with the broker's word for it.
    """

    def __init__(
        self,
        options: LinkOptions,
        *,
        on_message: Callable[[Incoming], None],
        on_up: Callable[[], None] | None = None,
        on_down: Callable[[], None] | None = None,
        will: Will | None = None,
        holds_out: Callable[[bool], bool] = lambda _flapping: False,
    ) -> None:
        self._options = options
        self._on_message = on_message
        self._holds_out = holds_out
        self._on_up = on_up
        self._on_down = on_down
        self._will = will
        self._paho: PahoClient | None = None
        self._loop = NetworkLoop()
        self._thread: threading.Thread | None = None
        self._subscriptions = Subscriptions()
        self._up = threading.Event()
        self._closing = threading.Event()
        self._refusal: BrokerError | None = None
        self._last_reason = ""
        self._losses: deque[float] = deque(maxlen=_FLAPS)
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
        # A broker that says nothing to MQTT 5 is to have its turn with 3.1.1, and half of the time for it.
        patience = min(_CONNACK_TIMEOUT, timeout / 2)
        while True:
            try:
                self._connect_with_fallback(patience)
                break
            except BrokerUnreachableError:
                if time.monotonic() + _RETRY_EVERY >= deadline:
                    raise
                time.sleep(_RETRY_EVERY)
        name = f"network-{self._options.client_id}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self, timeout: float = 2.0) -> None:
        """Disconnect in order and end the network thread. Never longer than `timeout` seconds."""
        self._closing.set()
        self._loop.wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        if not self.is_alive:
            self._loop.close()

    def give_up(self, error: BrokerError) -> None:
        """Disconnect in order, for good, and set `fatal`. From any thread; does not wait."""
        self.fatal = error
        self._closing.set()
        self._loop.wake()

    def set_will(self, will: Will) -> None:
        """What the broker publishes when the next connection dies. For `on_down`, before there is one."""
        self._will = will
        if self._paho is not None:
            self._paho.will_set(will.topic, will.payload, will.qos, retain=True)

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    @property
    def is_v5(self) -> bool:
        return self._paho is not None and self._paho.is_v5

    @property
    def is_alive(self) -> bool:
        """Whether the network thread runs; it ends by `close`, or with `fatal` set."""
        return self._thread is not None and self._thread.is_alive()

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
        granted = self.ask_for(filters)
        try:
            granted.result(timeout)
        except TimeoutError:
            raise ConnectionLostError(f"the broker did not answer a subscription within {timeout:g} s") from None

    def ask_for(self, filters: Mapping[str, int]) -> Future[None]:
        """Subscribe as `subscribe` does, without waiting: the future hears the broker's answer."""
        self._subscriptions.add(filters)
        granted: Future[None] = Future()
        paho = self._paho
        if paho is None:
            raise ConnectionLostError("not connected")
        self._loop.call(lambda: self._subscriptions.request(paho, filters, granted))
        return granted

    def unsubscribe(self, topic_filter: str) -> None:
        """Unsubscribe, without waiting for the broker."""
        self._subscriptions.drop(topic_filter)
        paho = self._paho
        if paho is not None:
            self._loop.call(lambda: _ignore(paho.unsubscribe(topic_filter)))

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, properties: Packed | None = None
    ) -> bool:
        """Have the network thread publish a message. From any thread; `send` is for the network thread itself.

        Args:
            topic: where to.
            payload: what.
            qos: 0 or 1.
            retain: whether the broker keeps it for later subscribers.
            properties: MQTT 5 properties; left out where the link speaks 3.1.1.

        Returns:
            Whether it was taken: QoS 0 needs a connection, QoS 1 waits for one.
        """
        if not self.is_up and qos == 0:
            return False
        self._loop.call(lambda: _ignore(self.send(topic, payload, qos=qos, retain=retain, properties=properties)))
        return True

    def send(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, properties: Packed | None = None
    ) -> Handle | None:
        """Publish from the network thread, straight to the socket.

        Returns:
            What knows when a QoS 1 message was acknowledged; None where there is no connection.
        """
        paho = self._paho
        if paho is None:
            return None
        if not qos and not retain and paho.publish_plain(topic, payload, properties):
            return _SENT
        # paho's type is its own `Properties`; all that it asks of one is `pack`.
        info = paho.publish(topic, payload, qos, retain, cast(Any, properties) if paho.is_v5 else None)
        return None if info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN and qos == 0 else info

    @property
    def has_room(self) -> bool:
        """Whether the socket has taken everything so far."""
        return self.is_up and self._paho is not None and self._paho.has_room

    @property
    def is_drained(self) -> bool:
        """Whether everything sent so far has been written."""
        return self.is_up and self._paho is not None and not self._paho.want_write()

    def feed_from(self, feed: Feed) -> None:
        """Ask `feed` for messages whenever there is room; `wake` says that it has new ones."""
        self._loop.feed = feed

    def wake(self) -> None:
        self._loop.wake()

    def call(self, wish: Callable[[], None]) -> None:
        """Let the network thread do something, between two messages."""
        self._loop.call(wish)

    def acknowledge(self, message: Incoming) -> None:
        """Acknowledge a message to the broker, where `LinkOptions.manual_ack` left that to us.

        From the network thread, behind what was sent before: where the connection breaks, its answer and the
        acknowledgement are lost together. Put off, it could leave on the next connection, and nobody would answer.
        """
        if self._options.manual_ack and message.qos and self._paho is not None:
            self._paho.ack(message.ack_id, message.qos)

    # --- connecting ---

    def _connect_with_fallback(self, patience: float) -> None:
        """MQTT 5 first. A broker that refuses it, in words, by closing the connection or by silence, gets 3.1.1."""
        if self._options.protocol is not None:
            self._attempt(self._options.protocol, patience)
            return
        try:
            self._attempt(MQTTProtocolVersion.MQTTv5, patience)
        except (_ProtocolRefusedError, _SilentError) as refusal:
            log.info("the broker speaks no MQTT 5 (%s); using MQTT 3.1.1", refusal.reason)
            self._attempt(MQTTProtocolVersion.MQTTv311, patience)

    def _attempt(self, protocol: MQTTProtocolVersion, patience: float) -> None:
        paho = build_paho(self._options, protocol, self._will)
        paho.on_connect = self._connected
        paho.on_disconnect = self._disconnected
        paho.on_subscribe = self._subscribed
        paho.on_message = lambda _paho, _user, message: self._received(incoming(message))
        paho.on_plain_message = self._received
        paho.on_socket_open = _opened
        self._paho = paho
        try:
            self._handshake(paho, lambda: open_connection(paho, self._options), patience)
        except BrokerError:
            self._paho = None
            raise

    def _handshake(self, paho: PahoClient, open_socket: Callable[[], Any], patience: float) -> None:
        """Open the connection and wait for the broker's CONNACK, for at most `patience` seconds.

        Raises:
            BrokerUnreachableError: nobody answers, or nobody who speaks MQTT.
            BrokerRefusedError: the broker says no.
        """
        url = self._options.url
        self._refusal, self._last_reason = None, ""
        deadline = time.monotonic() + patience
        try:
            open_socket()
        except ssl.SSLError as error:
            raise BrokerRefusedError(f"TLS with {url} failed: {_tls_words(error)}") from None
        except (OSError, ValueError) as error:
            raise BrokerUnreachableError(f"cannot reach the broker at {url}: {_in_words(error)}") from None
        self._loop.run(paho, lambda: self.is_up or time.monotonic() > deadline, serving=lambda: False)
        if self.is_up:
            return
        if self._refusal is not None:
            raise self._refusal
        if paho.tls_error is not None:
            raise BrokerRefusedError(f"TLS with {url} failed: {_tls_words(paho.tls_error)}")
        if time.monotonic() > deadline:
            raise _SilentError(f"{url} accepts connections but does not speak MQTT")
        # RabbitMQ closes the connection without a word when it is spoken to in MQTT 5.
        raise _ProtocolRefusedError(f"the broker at {url} closed the connection: {self._last_reason}")

    # --- the network thread ---

    def _run(self) -> None:
        """Serve, lose, connect anew, until told to end."""
        paho = self._paho
        assert paho is not None  # noqa: S101 - `connect` made it before it started this thread
        try:
            while not self._closing.is_set():
                self._loop.run(paho, self._closing.is_set, serving=self._up.is_set)
                if not self._closing.is_set():
                    self._lost()
                    self._reconnect(paho)
            self._say_goodbye(paho)
        except BrokerError as error:
            log.error("giving up the connection: %s", error.reason)  # noqa: TRY400 - a sentence, not a traceback
            self.fatal = error
        except Exception:
            log.exception("the network thread failed")
            self.fatal = ConnectionLostError("the network thread failed")
        finally:
            self._set_down()

    def _say_goodbye(self, paho: PahoClient) -> None:
        if self.is_up:
            self._loop.serve_last_wishes()
            paho.flush()
        self._set_down()
        paho.disconnect()

    def _lost(self) -> None:
        """Tell those concerned; they find in `fatal` whether it is for good.

        Raises:
            ConnectionLostError: this happens again and again, or because another client has our id.
        """
        log.warning("connection to the broker lost: %s", self._last_reason)
        self._losses.append(time.monotonic())
        self.fatal = self._final_reason(self._last_reason)
        self._set_down()
        if self.fatal is not None:
            raise self.fatal

    def _final_reason(self, reason: str) -> ConnectionLostError | None:
        taken_over = reason == "Session taken over"
        flapping = len(self._losses) == _FLAPS and self._losses[-1] - self._losses[0] < _FLAP_WINDOW
        if not taken_over and not flapping:
            return None
        if self._holds_out(flapping):
            if flapping:
                self._losses.clear()
            return None
        identity = f"the client id {self._options.client_id!r}"
        if taken_over:
            return IdTakenError(f"another client uses {identity} on this broker")
        return ConnectionLostError(
            f"the broker drops this connection again and again ({reason}); is {identity} in use twice?"
        )

    def _reconnect(self, paho: PahoClient) -> None:
        """Try until it works, or until the end: exponential backoff with jitter."""
        delay = _RETRY_EVERY
        while not self._closing.wait(random.uniform(delay / 2, delay)):  # noqa: S311 - no secret
            try:
                self._handshake(paho, paho.reconnect, _CONNACK_TIMEOUT)
            except BrokerError as error:
                log.warning("no connection yet: %s", error.reason)
                delay = min(2 * delay, self._options.reconnect_max)
            else:
                log.info("connected again")
                return

    def _set_down(self) -> None:
        was_up = self._up.is_set()
        self._up.clear()
        self._subscriptions.lost()
        if (was_up or self.fatal is not None) and self._on_down is not None:
            _guarded(self._on_down)

    # --- paho's callbacks; all run in the network thread (before it starts, in `connect`'s) ---

    def _connected(self, paho: Any, _user: Any, _flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            name = str(reason)
            refused = f"the broker at {self._options.url} refused us: {name}"
            self._refusal = (_ProtocolRefusedError if name in _FALLBACK_REASONS else BrokerRefusedError)(refused)
            return
        self.max_packet_size = getattr(properties, "MaximumPacketSize", None)
        self._subscriptions.restore(paho)
        self._up.set()
        if self._on_up is not None:
            _guarded(self._on_up)

    def _disconnected(self, _paho: Any, _user: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        # The first word counts: when the broker says why it disconnects, paho adds that the connection is gone.
        self._last_reason = self._last_reason or str(reason)

    def _subscribed(self, _paho: Any, _user: Any, mid: int, reasons: Sequence[ReasonCode], _properties: Any) -> None:
        self._subscriptions.answered(mid, reasons)

    def _received(self, message: Incoming) -> None:
        try:
            self._on_message(message)
        except Exception:
            log.exception("a message could not be handled")


class _ProtocolRefusedError(BrokerRefusedError):
    """The broker does not speak the protocol version that was tried."""


class _SilentError(BrokerUnreachableError):
    """Connected, and no CONNACK. amqtt does so with MQTT 5 and a Last Will."""


class _Sent:
    """A message of QoS 0: nobody acknowledges it."""

    def is_published(self) -> bool:
        return True


_SENT: Final = _Sent()


def _opened(_paho: Any, _user: Any, connection: Any) -> None:
    send_at_once(connection)


def _guarded(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:
        log.exception("a link callback failed")


def _ignore(_result: object) -> None:
    """For wishes whose result nobody waits for."""


def _in_words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _tls_words(error: ssl.SSLError) -> str:
    """What is wrong with the certificate, else OpenSSL's reason (`TLSV13_ALERT_CERTIFICATE_REQUIRED`) in words."""
    return getattr(error, "verify_message", "") or (error.reason or str(error)).lower().replace("_", " ")
