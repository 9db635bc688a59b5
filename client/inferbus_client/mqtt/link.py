"""One MQTT connection, used by both wings: TLS, MQTT 5 with a fall-back to 3.1.1, reconnecting, resubscribing.

Each link owns one thread, `network-<client id>`, which alone touches the socket (see `network_loop`). Its life reads in
`_serve`: serve the connection until it is lost, connect anew, and so on until `close`. What goes wrong in a callback is
logged and ends nothing. Two clients of one id would kick each other for ever: then the link gives up, and `fatal` says
why, unless its user knows better (`holds_out`). Subscriptions are lost with a connection: they are remembered, and made
again on every new one.
"""

from __future__ import annotations

import logging
import random
import threading
import time
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
from inferbus_client.mqtt.crossing import REFUSED, SENT, Crossing, OnRefused
from inferbus_client.mqtt.handshake import (
    BrokersWord,
    HungUpError,
    ProtocolRefusedError,
    SilentError,
    shake_hands,
    wait_for,
)
from inferbus_client.mqtt.losses import TAKEN_OVER, Losses, may_be_about_a_packet
from inferbus_client.mqtt.network_loop import Feed, NetworkLoop
from inferbus_client.mqtt.options import Handle, Incoming, LinkOptions, Packed, Will
from inferbus_client.mqtt.paho_client import PahoClient
from inferbus_client.mqtt.paho_setup import build_paho, open_connection
from inferbus_client.mqtt.sockets import send_at_once
from inferbus_client.mqtt.subscriptions import Subscriptions, WhenRefused
from inferbus_client.mqtt.suspicion import NOTHING_FOUND, Parcel

log = logging.getLogger("inferbus.link")

#: The longest wait for a broker's answer to CONNECT.
_CONNACK_TIMEOUT: Final = 5.0
_RETRY_EVERY: Final = 0.25
_COMPLAIN_EVERY: Final = 1.0
_IDENTIFIERS: Final = 65535
#: Beyond a timeout, for the network thread to say in its own words why nothing came of it.
_THREAD_GRACE: Final = 0.5


class Link:
    """One connection to one broker. `connect`, `subscribe`, `publish`, `close`.

    Args:
        options: how to reach the broker.
        on_message: called in the network thread for every message; must not block.
        on_up: called there after every successful (re)connect, when subscriptions have been requested again.
        on_down: called there when the connection is lost.
        will: published by the broker when this link dies.
        when_refused: asked there whether to try again, where the broker refuses a filter that it has granted before;
            `unheard` says why until it grants it again.
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
        when_refused: WhenRefused = lambda _name, _error: False,
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
        self._subscriptions = Subscriptions(when_refused)
        self._crossing = Crossing(self._subscriptions)
        self._up = threading.Event()
        self._closing = threading.Event()
        self._opened: Future[None] = Future()
        self._connecting = False
        self._word = BrokersWord()
        self._losses = Losses()
        self.fatal: BrokerError | None = None
        self.max_packet_size: int | None = options.max_packet_bytes
        #: Messages that were dropped, since their packets were not legal.
        self.unreadable = 0
        self._silent_until = 0.0
        #: How many unacknowledged QoS 1 messages the broker takes at once.
        self.receive_maximum = _IDENTIFIERS
        #: Whether the broker has kept what it knew of us since the connection before (`LinkOptions.session_expiry`).
        self.session_present = False

    # --- lifecycle ---

    def connect(self, timeout: float, stop: Callable[[], bool] | None = None) -> None:
        """Connect, trying again until `timeout` seconds have passed. Later losses are repaired by themselves.

        Args:
            timeout: seconds.
            stop: asked every now and then whether to break off.

        Raises:
            BrokerUnreachableError: nobody answered in that time.
            BrokerRefusedError: the broker said no, which trying again does not change.
            ConnectionLostError: told to stop.
        """
        name = f"network-{self._options.client_id}"
        # The network thread does it: the system's own waits, for a connection or for TLS, hear no signal.
        self._thread = threading.Thread(target=self._run, args=(timeout,), name=name, daemon=True)
        self._thread.start()
        try:
            wait_for(self._opened, timeout + _THREAD_GRACE, stop)
        except TimeoutError:
            self._end()
            url = self._options.url
            raise BrokerUnreachableError(f"nobody answers at {url} within {timeout:g} s") from None
        except BaseException:
            self._end()
            raise

    def close(self, timeout: float = 2.0) -> None:
        """Disconnect in order and end the network thread. Never longer than `timeout` seconds.

        A thread that is just opening a connection is not waited for: it ends when the system lets go of it.
        """
        self._end()
        # A signal may have come between the thread's making and its start, which `is_alive` tells apart.
        if (
            self._thread is not None
            and self.is_alive
            and self._thread is not threading.current_thread()
            and not self._connecting
        ):
            self._thread.join(timeout)
        if not self.is_alive:
            self._loop.close()

    def _end(self) -> None:
        self._closing.set()
        self._loop.wake()

    def give_up(self, error: BrokerError) -> None:
        """Disconnect in order, for good, and set `fatal`. From any thread; does not wait."""
        self.fatal = error
        self._end()

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

    @property
    def unheard(self) -> BrokerRefusedError | None:
        """Why something that was subscribed to is not heard, as long as the broker refuses it."""
        return self._subscriptions.unheard

    def wait_up(self, timeout: float | None) -> bool:
        return self._up.wait(timeout)

    # --- messages ---

    def subscribe(
        self, filters: Mapping[str, int], timeout: float = 10.0, stop: Callable[[], bool] | None = None
    ) -> None:
        """Subscribe now and after every reconnect; returns when the broker granted it.

        Args:
            filters: topic filter to QoS.
            timeout: seconds to wait for the broker's answer.
            stop: asked every now and then whether to wait no longer.

        Raises:
            BrokerRefusedError: a filter was refused (`MessageRefusedError`: by closing the connection on it).
            ConnectionLostError: no answer came in time, or told to stop.
        """
        granted = self.ask_for(filters)
        try:
            wait_for(granted, timeout, stop)
        except TimeoutError:
            raise ConnectionLostError(f"the broker did not answer a subscription within {timeout:g} s") from None

    def ask_for(self, filters: Mapping[str, int]) -> Future[None]:
        """Subscribe as `subscribe` does, without waiting: the future hears the broker's answer."""
        granted: Future[None] = Future()
        paho = self._paho
        if paho is None:
            raise ConnectionLostError("not connected")
        self._subscriptions.expect(granted)
        self._loop.call(lambda: self._crossing.subscribe(paho, filters, granted))
        return granted

    def unsubscribe(self, topic_filter: str) -> None:
        """Unsubscribe, without waiting for the broker."""
        self._subscriptions.drop(topic_filter)
        paho = self._paho
        if paho is not None:
            self._loop.call(lambda: _ignore(paho.unsubscribe(topic_filter)))

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Packed | None = None,
        on_refused: OnRefused | None = None,
    ) -> bool:
        """Have the network thread publish a message. From any thread; `send` is for the network thread itself.

        Args:
            topic: where to.
            payload: what.
            qos: 0 or 1.
            retain: whether the broker keeps it for later subscribers.
            properties: MQTT 5 properties; left out where the link speaks 3.1.1.
            on_refused: called in the network thread if the broker closes the connection on this message, which then
                is not sent again.

        Returns:
            Whether it was taken: QoS 0 needs a connection, QoS 1 waits for one.
        """
        if not self.is_up and qos == 0:
            return False

        def send() -> None:
            self.send(topic, payload, qos=qos, retain=retain, properties=properties, on_refused=on_refused)

        self._loop.call(send)
        return True

    def send(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Packed | None = None,
        on_refused: OnRefused | None = None,
    ) -> Handle | None:
        """Publish from the network thread, straight to the socket.

        Returns:
            What knows when a QoS 1 message was acknowledged, on this connection or, sent again, on a later one; None
            where it was not taken, for want of a connection or of an identifier.
        """
        paho = self._paho
        if paho is None:
            return None
        size, alert = len(topic) + len(payload), self._crossing.suspicion.is_alert
        if alert and self._crossing.refuses(Parcel(topic, size), on_refused):
            return REFUSED
        packet_id, handle = self._publish(paho, topic, payload, qos=qos, retain=retain, properties=properties)
        if handle is None:
            return None
        if not qos:
            self._crossing.suspicion.wrote(topic, size)
        if qos or alert:
            self._crossing.sent(packet_id, Parcel(topic, size), on_refused)
        return handle

    def _publish(
        self, paho: PahoClient, topic: str, payload: bytes, *, qos: int, retain: bool, properties: Packed | None
    ) -> tuple[int, Handle | None]:
        if not qos and not retain and paho.publish_plain(topic, payload, properties):
            return 0, SENT
        # paho's type is its own `Properties`; all that it asks of one is `pack`.
        info = paho.publish(topic, payload, qos, retain, cast(Any, properties) if paho.is_v5 else None)
        if not qos:
            return 0, None if info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN else info
        if info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            return 0, None
        # paho keeps it, and sends it on the next connection if it is not acknowledged on this one; but with this code
        # its handle would call it lost for good.
        info.rc = MQTTErrorCode.MQTT_ERR_SUCCESS
        return info.mid, info

    @property
    def has_room(self) -> bool:
        """Whether the socket has taken everything so far."""
        return self._is_serving() and self._paho is not None and self._paho.has_room

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

    def acknowledge(self, ack_id: int) -> None:
        """Acknowledge a QoS 1 message to the broker, where `LinkOptions.manual_ack` left that to us.

        From the network thread, behind what was sent before: where the connection breaks, its answer and the
        acknowledgement are lost together. Put off, it could leave on the next connection, and nobody would answer.
        """
        if self._options.manual_ack and self._paho is not None:
            self._paho.ack(ack_id, 1)

    # --- connecting; in the network thread ---

    def _open(self, timeout: float) -> None:
        """Connect, trying again until `timeout` seconds have passed. Raises what `connect` raises."""
        deadline = time.monotonic() + timeout
        # A broker that says nothing to MQTT 5 is to have its turn with 3.1.1, and half of the time for it.
        patience = min(_CONNACK_TIMEOUT, timeout / 2)
        while not self._closing.is_set():
            try:
                return self._connect_with_fallback(patience)
            except BrokerUnreachableError:
                if time.monotonic() + _RETRY_EVERY >= deadline or self._closing.wait(_RETRY_EVERY):
                    raise
        raise ConnectionLostError("told to stop")

    def _connect_with_fallback(self, patience: float) -> None:
        """MQTT 5 first. A broker that refuses it, in words, by closing the connection or by silence, gets 3.1.1."""
        if self._options.protocol is not None:
            self._attempt(self._options.protocol, patience)
            return
        try:
            self._attempt(MQTTProtocolVersion.MQTTv5, patience)
        except (ProtocolRefusedError, HungUpError, SilentError) as refusal:
            self._attempt(MQTTProtocolVersion.MQTTv311, patience)
            log.info("the broker speaks no MQTT 5 (%s); using MQTT 3.1.1", refusal.reason)

    def _attempt(self, protocol: MQTTProtocolVersion, patience: float) -> None:
        paho = build_paho(self._options, protocol, self._will)
        paho.on_connect = self._connected
        paho.on_disconnect = self._disconnected
        paho.on_subscribe = self._subscribed
        paho.on_arrival = self._received
        paho.on_unreadable = self._dropped
        paho.on_acknowledged = self._crossing.acknowledged
        paho.on_socket_open = _opened
        self._paho = paho
        try:
            self._handshake(paho, lambda: open_connection(paho, self._options), patience)
        except BaseException:
            self._paho = None
            paho.abandon()
            raise

    def _handshake(self, paho: PahoClient, open_socket: Callable[[], Any], patience: float) -> None:
        self._word = BrokersWord()
        self._connecting = True
        try:
            shake_hands(
                paho,
                self._options.url,
                open_socket,
                loop=self._loop,
                word=self._word,
                patience=patience,
                over=lambda: self.is_up or self._closing.is_set(),
            )
        finally:
            self._connecting = False

    # --- the network thread ---

    def _run(self, timeout: float) -> None:
        try:
            self._open(timeout)
        except BaseException as error:  # noqa: BLE001 - handed to the thread in `connect`
            self._opened.set_exception(error)
        else:
            self._opened.set_result(None)
            self._serve()
        finally:
            if self._closing.is_set():
                self._loop.close()

    def _serve(self) -> None:
        """Serve, lose, connect anew, until told to end."""
        paho = self._paho
        assert paho is not None  # noqa: S101 - `_open` made it
        try:
            while not self._closing.is_set():
                self._loop.run(
                    paho,
                    self._closing.is_set,
                    serving=self._is_serving,
                    attend=lambda: self._crossing.attend(paho),
                )
                if not self._closing.is_set():
                    self._lost(paho)
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
            self._subscriptions.abandon()
            paho.abandon()

    def _say_goodbye(self, paho: PahoClient) -> None:
        if self.is_up:
            self._loop.serve_last_wishes()
            paho.flush()
        self._set_down()
        paho.disconnect()

    def _is_serving(self) -> bool:
        return self._up.is_set() and self._crossing.is_open

    def _lost(self, paho: PahoClient) -> None:
        """Tell those concerned; they find in `fatal` whether it is for good.

        Raises:
            ConnectionLostError: this happens again and again, or because another client has our id.
        """
        reason = self._word.parting
        log.warning("connection to the broker lost: %s", reason)
        finding = self._crossing.lost(paho) if may_be_about_a_packet(reason) else NOTHING_FOUND
        self._losses.note(reason, suspicious=finding.suspicious)
        if finding.guilty is not None:
            self._losses.forget()
        self.fatal = self._final_reason(reason)
        self._set_down()
        if self.fatal is not None:
            raise self.fatal

    def _final_reason(self, reason: str) -> ConnectionLostError | None:
        taken_over, flapping = reason == TAKEN_OVER, self._losses.are_flapping
        if not taken_over and not flapping:
            return None
        if self._holds_out(flapping):
            if flapping:
                self._losses.forget()
            return None
        identity = f"the client id {self._options.client_id!r}"
        if taken_over:
            return IdTakenError(f"another client uses {identity} on this broker")
        return ConnectionLostError(
            f"the broker drops this connection again and again ({reason}); is {identity} in use twice?"
        )

    def _reconnect(self, paho: PahoClient) -> None:
        """Try until it works, or until the end: exponential backoff with jitter."""
        delay = self._losses.delay
        while not self._closing.wait(random.uniform(delay / 2, delay)):  # noqa: S311 - no secret
            self._crossing.prepare(paho)
            try:
                self._handshake(paho, paho.reconnect, _CONNACK_TIMEOUT)
            except BrokerError as error:
                log.warning("no connection yet: %s", error.reason)
                self._losses.explain()
                delay = min(2 * delay, self._options.reconnect_max)
            else:
                if self.is_up:
                    log.info("connected again")
                return

    def _set_down(self) -> None:
        was_up = self._up.is_set()
        self._up.clear()
        self._subscriptions.lost()
        if (was_up or self.fatal is not None) and self._on_down is not None:
            _guarded(self._on_down)

    # --- paho's callbacks; all run in the network thread ---

    def _connected(self, paho: Any, _user: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            self._word.refuse(self._options.url, reason)
            return
        limits = (self._options.max_packet_bytes, getattr(properties, "MaximumPacketSize", None))
        self.max_packet_size = min((limit for limit in limits if limit is not None), default=None)
        self.session_present = bool(flags.session_present)
        self.receive_maximum = getattr(properties, "ReceiveMaximum", _IDENTIFIERS)
        self._crossing.begin(paho)
        self._up.set()
        if self._on_up is not None:
            _guarded(self._on_up)

    def _disconnected(self, _paho: Any, _user: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        self._word.part(reason)

    def _subscribed(self, _paho: Any, _user: Any, mid: int, reasons: Sequence[ReasonCode], _properties: Any) -> None:
        self._subscriptions.answered(mid, reasons)

    def _received(self, message: Incoming) -> None:
        try:
            self._on_message(message)
        except Exception:
            log.exception("a message could not be handled")

    def _dropped(self, why: str) -> None:
        self.unreadable += 1
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + _COMPLAIN_EVERY
            log.warning("dropped a message that cannot be read: %s (%d so far)", why, self.unreadable)


def _opened(_paho: Any, _user: Any, connection: Any) -> None:
    send_at_once(connection)


def _guarded(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:
        log.exception("a link callback failed")


def _ignore(_result: object) -> None:
    """For wishes whose result nobody waits for."""
