"""A worker's part in its group's requests: the broker deals them to the members of a shared subscription, one each.

Not every broker that grants one delivers for it (NATS, RabbitMQ and amqtt do not), so each worker first tries a private
one. Leaving takes care of what has been dealt already: behind the UNSUBSCRIBE goes a message to ourselves, and when
that has come, everything that was dealt before it has come too.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from inferbus_client.contract import topics
from inferbus_client.errors import BrokerError, BrokerRefusedError, ConnectionLostError, NoSharesError
from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Handle, Incoming
from inferbus_worker.bus.listening import Listening
from inferbus_worker.settings.worker import Settings

log = logging.getLogger("inferbus.share")

_LOOK_EVERY: Final = 0.02
#: From the broker's acknowledgement of a message to ourselves until it must have come.
_DELIVERY: Final = 3.0
#: Connections that are lost one after the other with such a message on its way: fewer than make a link give up.
_LOSSES: Final = 3
_SAYS_NO: Final = "it says that it has no shared subscriptions"


class Share:
    """One worker's membership. All but `heard` and `dealt` may wait, and is for the main thread.

    Args:
        settings: the worker's.
        group: its group's name.
        link: its connection.
        listening: subscribes on it.
        requests: filters of what is dealt out.
    """

    def __init__(
        self, settings: Settings, group: str, link: Link, listening: Listening, requests: Sequence[str]
    ) -> None:
        self._settings = settings
        self._link = link
        self._listening = listening
        self._qos = settings.request_qos
        self._requests = requests
        self.filters = frozenset(topics.shared(group, name) for name in requests)
        self.topic = topics.probe(settings.worker_id)
        self._probe = topics.shared(f"{group}.{settings.worker_id}", self.topic)
        self._came = threading.Event()
        self._mark = b""
        self._connection = 0
        self._dealt_at = -math.inf
        #: The broker that is known to share.
        self._proven: BrokerUrl | None = None

    # --- in the network thread ---

    def heard(self, message: Incoming) -> None:
        """A message on our `topic`."""
        if message.qos:
            self._link.acknowledge(message.ack_id)
        if message.payload == self._mark:
            self._came.set()

    def dealt(self) -> None:
        """A request has come: before we join it is from before, and the broker may have more of them."""
        self._dealt_at = time.monotonic()

    def connection_lost(self) -> None:
        self._connection += 1

    # --- in the main thread ---

    def prepare(self, stop: Callable[[], bool]) -> None:
        """Let go of what an earlier run has left in our session with the broker, and see whether the broker can share.

        Raises:
            NoSharesError: it cannot.
            BrokerError: the connection was lost, or told to stop.
        """
        # An earlier run may have been no member: all requests would come to us, besides those that are dealt to us.
        self._listening.end([*self._requests, *self.filters] if self._link.session_present else ())
        if not self._link.shares:
            raise self._unable(_SAYS_NO)
        try:
            self._listening.begin({self._probe: 1}, stop)
        except BrokerRefusedError as refusal:
            raise self._unable(refusal.reason) from None
        self._prove(stop)
        if self._proven is None:
            log.info("the broker still has requests for us from before; whether it can share is seen when they are in")

    def join(self, stop: Callable[[], bool]) -> None:
        """Have requests dealt to us from now on.

        Raises:
            NoSharesError: the broker cannot share.
            BrokerError: it refuses, the connection was lost, or told to stop.
        """
        if self._proven is None:
            self._prove(stop)
        self._listening.begin(dict.fromkeys(self.filters, self._qos), stop)

    def look(self) -> None:
        """After a move to another broker, of several, see whether that can share too.

        Raises:
            NoSharesError: it cannot.
            BrokerError: it does not answer, or the connection was lost.
        """
        if self._proven not in {None, self._link.url} and self._link.is_up:
            if not self._link.shares:
                raise self._unable(_SAYS_NO)
            self._prove(lambda: not self._link.is_alive)

    def leave(self, timeout: float) -> bool:
        """Have no more dealt to us; returns when all that was dealt before has been received.

        Returns:
            Whether that is so; else `timeout` seconds have passed, or the connection is gone for good.
        """
        deadline = time.monotonic() + timeout

        def over(_sent: Handle | None) -> bool:
            return time.monotonic() > deadline or not self._link.is_alive

        # As a loss may have come between the two, and the broker have heard the second alone: both again.
        return self._comes_back(lambda: self._listening.end(self.filters), over)

    # --- messages to ourselves ---

    def _prove(self, stop: Callable[[], bool]) -> None:
        """Find out whether the broker delivers for a share; not known while a backlog may stand before the answer."""
        gives_up = time.monotonic() + self._settings.broker_timeout
        acknowledged: float | None = None
        connection, losses = self._connection, 0

        def over(sent: Handle | None) -> bool:
            nonlocal acknowledged, connection, losses
            now = time.monotonic()
            if stop():
                raise ConnectionLostError("told to stop")
            if connection != self._connection:
                connection, acknowledged, losses = self._connection, None, losses + 1
            if acknowledged is None and _is_there(sent):
                acknowledged = now
            if acknowledged is None:
                return losses >= _LOSSES or now > gives_up
            return now > max(acknowledged, self._dealt_at) + _DELIVERY

        is_back = self._comes_back(lambda: None, over)
        self._proven = self._link.url if is_back else None
        if is_back or (self._dealt_at > -math.inf and self._link.session_present):
            return
        if losses >= _LOSSES:
            raise self._unable(f"it closes the connection on a message to {self.topic!r}")
        if acknowledged is None:
            silent = f"acknowledges no message within {self._settings.broker_timeout:g} s"
            raise BrokerError(f"the broker at {self._link.url} {silent}")
        raise self._unable(f"it grants a shared subscription and delivers nothing for it within {_DELIVERY:g} s")

    def _comes_back(self, before: Callable[[], None], over: Callable[[Handle | None], bool]) -> bool:
        """Send ourselves a message, and again on each new connection, until one comes on that on which it was sent.

        Args:
            before: asks for what is to go before it.
            over: asked all the time whether to give up; of what was sent last it gets what knows of its arrival.
        """
        while True:
            connection, sent = self._connection, self._send(before)
            while not self._came.wait(_LOOK_EVERY) and connection == self._connection:
                if over(next(iter(sent), None)):
                    return False
            if connection == self._connection:
                return True

    def _send(self, before: Callable[[], None]) -> Iterable[Handle]:
        mark = uuid.uuid4().hex.encode()
        self._mark = mark
        self._came.clear()
        before()
        sent: list[Handle] = []

        def send() -> None:
            handle = self._link.send(self.topic, mark, qos=1)
            if handle is not None:
                sent.append(handle)

        self._link.call(send)
        return sent

    def _unable(self, why: str) -> NoSharesError:
        return NoSharesError(self._probe, str(self._link.url), why)


def _is_there(sent: Handle | None) -> bool:
    """Whether the broker has taken a message."""
    try:
        return sent is not None and sent.is_published()
    except (RuntimeError, ValueError):
        return False
