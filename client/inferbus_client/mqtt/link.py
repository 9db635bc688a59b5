"""One MQTT client, used by both wings: TLS, MQTT 5 with a fall-back to 3.1.1, reconnecting, resubscribing.

Each link owns one thread, `network-<client id>`, which alone touches the socket (see `network_loop`). Its life reads in
`_serve`: serve the connection until it is lost, connect anew, and so on until `close`. How it is opened stands in
`connection`, how messages leave in `publisher`. What goes wrong in a callback is logged and ends nothing. Two clients
of one id would kick each other for ever: then the link gives up, and `fatal` says why, unless its user knows better
(`holds_out`). Subscriptions are lost with a connection: they are remembered, and made again on every new one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Final

from inferbus_client.errors import BrokerError, BrokerRefusedError, BrokerUnreachableError, ConnectionLostError
from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.connection import Connection
from inferbus_client.mqtt.crossing import Crossing
from inferbus_client.mqtt.handshake import wait_for
from inferbus_client.mqtt.losses import Losses, may_be_about_a_packet
from inferbus_client.mqtt.message import Incoming
from inferbus_client.mqtt.network_loop import NetworkLoop
from inferbus_client.mqtt.options import LinkOptions, Will
from inferbus_client.mqtt.paho_client import PahoClient
from inferbus_client.mqtt.paho_setup import say_goodbye
from inferbus_client.mqtt.publisher import Publisher
from inferbus_client.mqtt.subscriptions import Subscriptions, WhenRefused
from inferbus_client.mqtt.suspicion import NOTHING_FOUND

log = logging.getLogger("inferbus.link")

_COMPLAIN_EVERY: Final = 1.0
#: Beyond a timeout, for the network thread to say in its own words why nothing came of it.
_THREAD_GRACE: Final = 0.5


class Link(Publisher):
    """One client of one broker. `connect`, `subscribe`, `publish`, `close`.

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

    Attributes:
        fatal: why it has given up; None as long as it has not.
        unreadable: messages that were dropped, since their packets were not legal.
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
        self._subscriptions = Subscriptions(when_refused)
        self._closing = threading.Event()
        loop = NetworkLoop()
        connection = Connection(options, loop, self._closing, will, hear=self._hear, on_taken_in=self._taken_in)
        super().__init__(connection, loop, Crossing(self._subscriptions))
        self._thread: threading.Thread | None = None
        self._opened: Future[PahoClient] = Future()
        self._losses = Losses()
        self._silent_until = 0.0
        self._forgets = self._vanishes = False
        self.unreadable = 0
        self.fatal: BrokerError | None = None

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
            where = " or ".join(map(str, self._options.urls))
            raise BrokerUnreachableError(f"nobody answers at {where} within {timeout:g} s") from None
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
            and not self._connection.is_opening
        ):
            self._thread.join(timeout)
        if not self.is_alive:
            self._loop.close()

    def forget_session(self) -> None:
        """Have the broker forget us when we close in order, which only MQTT 5 can tell it."""
        self._forgets = True

    def vanish(self) -> None:
        """End without a word to the broker, as a process that is killed does."""
        self._vanishes = True
        self.close()

    def _end(self) -> None:
        self._closing.set()
        self._loop.wake()

    def give_up(self, error: BrokerError) -> None:
        """Disconnect in order, for good, and set `fatal`. From any thread; does not wait."""
        self.fatal = error
        self._end()

    def set_will(self, will: Will) -> None:
        """What the broker publishes when the next connection dies. For `on_down`, before there is one."""
        self._connection.set_will(will)

    @property
    def is_alive(self) -> bool:
        """Whether the network thread runs; it ends by `close`, or with `fatal` set."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def url(self) -> BrokerUrl:
        """Where it is connected to, or was last."""
        return self._connection.url

    @property
    def unheard(self) -> BrokerRefusedError | None:
        """Why something that was subscribed to is not heard, as long as the broker refuses it."""
        return self._subscriptions.unheard

    # --- subscriptions ---

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
        granted = self.start_subscribing(filters)
        try:
            wait_for(granted, timeout, stop)
        except TimeoutError:
            raise ConnectionLostError(f"the broker did not answer a subscription within {timeout:g} s") from None

    def start_subscribing(self, filters: Mapping[str, int]) -> Future[None]:
        """Subscribe as `subscribe` does, without waiting: the future hears the broker's answer."""
        granted: Future[None] = Future()
        paho = self._connection.paho
        if paho is None:
            raise ConnectionLostError("not connected")
        self._subscriptions.expect(granted)
        self._loop.call(lambda: self._crossing.subscribe(paho, filters, granted))
        return granted

    def unsubscribe(self, topic_filter: str) -> None:
        """Unsubscribe, without waiting for the broker."""
        self._subscriptions.drop(topic_filter)
        paho = self._connection.paho
        if paho is not None:
            self._loop.call(lambda: paho.unsubscribe(topic_filter))

    # --- the network thread ---

    def _run(self, timeout: float) -> None:
        try:
            paho = self._connection.open(timeout)
        except BaseException as error:  # noqa: BLE001 - handed to the thread in `connect`
            self._opened.set_exception(error)
        else:
            self._opened.set_result(paho)
            self._serve(paho)
        finally:
            if self._closing.is_set():
                self._loop.close()

    def _serve(self, paho: PahoClient) -> None:
        """Serve, lose, connect anew, until told to end."""
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
                    self._connection.open_again(
                        paho,
                        self._losses.delay,
                        prepare=lambda: self._crossing.prepare(paho),
                        on_failure=self._losses.explain,
                    )
            if not self._vanishes:
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
        say_goodbye(paho, forget=self._forgets)

    def _lost(self, paho: PahoClient) -> None:
        """Tell those concerned; they find in `fatal` whether it is for good.

        Raises:
            ConnectionLostError: this happens again and again, or because another client has our id.
        """
        reason = self._connection.parting_word
        log.warning("connection to the broker lost: %s", reason)
        finding = self._crossing.lost(paho) if may_be_about_a_packet(reason) else NOTHING_FOUND
        self._losses.note(reason, suspicious=finding.suspicious)
        if finding.guilty is not None:
            self._losses.forget()
        self.fatal = self._losses.why_not_again(reason, self._options.client_id, self._holds_out)
        self._set_down()
        if self.fatal is not None:
            raise self.fatal

    def _set_down(self) -> None:
        was_up = self.is_up
        self._connection.up.clear()
        self._subscriptions.lost()
        if (was_up or self.fatal is not None) and self._on_down is not None:
            _guarded(self._on_down)

    # --- what the connection tells; all in the network thread ---

    def _hear(self, paho: PahoClient) -> None:
        paho.on_subscribe = lambda _paho, _user, packet_id, reasons, _more: self._subscriptions.answered(
            packet_id, reasons
        )
        paho.on_arrival = self._received
        paho.on_unreadable = self._dropped
        paho.on_acknowledged = self._crossing.acknowledged

    def _taken_in(self, paho: PahoClient) -> None:
        self._crossing.begin(paho)
        self._connection.up.set()
        if self._on_up is not None:
            _guarded(self._on_up)

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


def _guarded(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:
        log.exception("a link callback failed")
