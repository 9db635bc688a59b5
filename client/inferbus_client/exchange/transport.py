"""One connection of a client: its life, its reply subscriptions, and what is sent over it.

`Client` and `AsyncClient` share it. Nothing here waits for a reply: an event is handed to the `deliver` function of
the request that it belongs to, in the link's network thread, so `deliver` must not block.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from typing import Final

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from inferbus_client.contract import topics
from inferbus_client.contract.wire import Failure
from inferbus_client.errors import (
    BrokerError,
    BrokerRefusedError,
    ClientClosedError,
    InvalidRequestError,
    NotConnectedError,
)
from inferbus_client.exchange.announced import Announced
from inferbus_client.exchange.assembly import AnyReply
from inferbus_client.exchange.call import Call, cancel_payload
from inferbus_client.exchange.reply_topics import ReplyTopics
from inferbus_client.exchange.steps import Deliver, Event, Signal
from inferbus_client.exchange.waiters import Waiter, Waiters
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Incoming
from inferbus_client.mqtt.options import LinkOptions
from inferbus_client.mqtt.plain_publish import LARGEST

# A library is silent unless the program that uses it says where its log goes.
logging.getLogger("inferbus").addHandler(logging.NullHandler())

#: Seconds that closing waits, at most, for the broker to read what was said last.
_LAST_WORD: Final = 1.0
_PACKET_OVERHEAD: Final = 64


class Transport:
    """A link, its reply topics, and who waits on them. For one connection of a client, and the next one has its own.

    Args:
        options: how to reach the broker.
        qos: quality of service of requests.
        on_stray: called with every reply that nobody waits for (late, or a repeat), in the network thread.

    Attributes:
        reply_topics: what it listens to.
    """

    def __init__(
        self, options: LinkOptions, *, qos: int = 1, on_stray: Callable[[AnyReply], None] | None = None
    ) -> None:
        self._link = Link(
            options,
            on_message=self._received,
            on_up=lambda: self._tell_all(Signal.RECONNECTED),
            on_down=self._went_down,
            when_refused=self._refused,
        )
        self._qos = qos
        self._waiters = Waiters(on_stray)
        # Re-entrant, since the garbage collector may close an abandoned stream here, while its thread is in here too.
        self._lock = threading.RLock()
        self._ended: BrokerError | None = NotConnectedError("the client is not connected")
        self._opening = self._closed = self._cancelled = False
        self._attending: set[Deliver] = set()
        self._announced: Announced | None = None
        self.reply_topics = ReplyTopics(self._link, in_use=self._waiters.by_topic)

    # --- lifecycle ---

    def open(self, timeout: float) -> None:
        """Connect.

        Raises:
            ClientClosedError: it was closed meanwhile.
            BrokerError: as `Link.connect` says.
        """
        with self._lock:
            self._opening = True
        try:
            if not self._closed:
                self._link.connect(timeout)
        except BaseException as error:
            self._opening = False
            self._link.close()
            if self._closed and isinstance(error, BrokerError):
                raise _closed() from None
            raise
        with self._lock:
            self._opening = False
            if not self._closed:
                self._ended = None
                return
        self._link.close()
        raise _closed()

    def close(self) -> None:
        """Disconnect. Whoever still waits for something is told, and so is the worker."""
        with self._lock:
            self._closed = True
            if self._ended is None:
                self._ended = _closed()
            if self._opening:
                self._link.give_up(_closed())  # whoever opens it closes it too, since he is using its sockets
                return
        for waiter in self._waiters.all():
            self._cancel(waiter, qos=0)  # of QoS 1 no more than a few would be under way at once
        self._tell_all(_closed())
        self._let_the_broker_read()
        self._link.close()

    @property
    def is_open(self) -> bool:
        """Whether requests can be made, now or when the link is up again."""
        return self._end is None

    @property
    def is_up(self) -> bool:
        return self._link.is_up

    @property
    def is_v5(self) -> bool:
        return self._link.is_v5

    @property
    def repeats_are_safe(self) -> bool:
        """Whether the worker is known to drop a repeat of a request id."""
        return self._waiters.repeats_are_safe

    @property
    def _end(self) -> BrokerError | None:
        return self._ended or self._link.fatal

    def check(self) -> None:
        """Whether requests can be made.

        Raises:
            BrokerError: there is no connection, and will be none.
        """
        if self._end is not None:
            raise self._end.again()

    def _let_the_broker_read(self) -> None:
        """Wait until it has read the last cancel: a socket closed over unread replies takes back what it said."""
        if self._cancelled and self._link.is_up and (answer := self.reply_topics.ask_again()) is not None:
            wait([answer], _LAST_WORD)

    # --- hearing ---

    @contextmanager
    def attended(self, deliver: Deliver) -> Iterator[None]:
        """While inside, `deliver` is told what becomes of the connection.

        Raises:
            BrokerError: there is none, and will be none.
        """
        try:
            with self._lock:
                self.check()
                self._attending.add(deliver)
            yield
        finally:
            with self._lock:
                self._attending.discard(deliver)

    @contextmanager
    def waiting(self, call: Call, deliver: Deliver) -> Iterator[None]:
        """While inside, replies to `call` go to `deliver`. If it leaves unanswered, the worker is told.

        Raises:
            InvalidRequestError: the request id is in use.
        """
        with self._waiters.waiting(call, deliver) as waiter:
            try:
                yield
            finally:
                self._cancel(waiter, qos=self._qos)

    def hear_announcements(self, timeout: float, *, stats: bool = False, known: Announced | None = None) -> Announced:
        """What workers say of themselves, heard on this connection from the first call on.

        Args:
            timeout: seconds that the broker has to grant it.
            stats: whether also their figures; said once.
            known: what was heard on a connection before, to go on with.

        Raises:
            BrokerError: the broker refuses that, or does not answer.
        """
        if self._announced is None:
            filters = {topics.presence("+"): 1, **({topics.stats("+"): 0} if stats else {})}
            self._announced = announced = Announced() if known is None else known
            try:
                self._link.subscribe(filters, timeout)
            except BrokerError:
                # A broker may disconnect whoever asks for too much, so it is not asked again.
                for topic_filter in filters:
                    self._link.unsubscribe(topic_filter)
                self._announced = None
                raise
            return announced
        return self._announced

    def ask_for_stats(self) -> None:
        """Ask every worker that may live for its figures, where announcements are heard."""
        for topic in () if self._announced is None else self._announced.questions():
            self._link.publish(topic, b"")

    # --- sending, from any thread ---

    def send(self, call: Call, remaining: float) -> bool:
        """Publish a call with `remaining` seconds until its deadline; False where no connection took it.

        Raises:
            ClientClosedError: this has been closed; from then on nothing is sent.
            InvalidRequestError: it is larger than the broker takes, or than a packet can be. Sent all the same, it
                would be sent again with every reconnect, each time to be refused.
        """
        payload = call.payload(deadline_ms=round(remaining * 1000))
        limit = min(self._link.max_packet_size or LARGEST, LARGEST)
        traced = 0 if call.trace is None else call.trace.size + _PACKET_OVERHEAD
        if len(payload) + len(call.topic) + _PACKET_OVERHEAD + traced > limit:
            raise InvalidRequestError(Failure("message_too_large"))
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = max(math.ceil(remaining), 1)
        if call.trace is not None:
            properties.UserProperty = list(call.trace.pairs)
        with self._lock:
            if self._closed:
                raise _closed()
            if not self._link.is_up:
                return False  # nothing is left to be sent later: whoever sends hears when there is a connection
            if (waiter := self._waiters.of(call.request_id)) is not None:
                waiter.may_be_published()
            return self._link.publish(
                call.topic,
                payload,
                qos=self._qos,
                properties=properties,
                on_refused=lambda error: self._waiters.tell(call.request_id, error),
            )

    def repeat(self) -> None:
        """Let every request that has no answer yet be sent again, as after a lost connection."""
        self.check()
        self._tell_all(Signal.RECONNECTED)

    def cancel(self, call: Call) -> None:
        """Tell the worker that nobody waits for an answer any more, where it may have heard the question."""
        if (waiter := self._waiters.of(call.request_id)) is not None:
            self._cancel(waiter, qos=self._qos)

    def publish_cancel(self, topic: str, request_id: str | None) -> None:
        """Cancel one request, or whatever the session has queued or running.

        Raises:
            BrokerError: there is no connection, and will be none.
        """
        self.check()
        self._cancelled = True
        self._link.publish(topic, cancel_payload(request_id), qos=self._qos)

    def _cancel(self, waiter: Waiter, qos: int) -> None:
        topic = waiter.call.cancel_topic
        if waiter.sent and waiter.open and topic is not None:
            self._cancelled = True
            self._link.publish(topic, cancel_payload(waiter.call.request_id), qos=qos)
            waiter.open = False

    # --- the link's callbacks; all run in its network thread ---

    def _received(self, message: Incoming) -> None:
        if self._announced is None or not self._announced.received(message):
            self._waiters.received(message)

    def _refused(self, topic: str, error: BrokerRefusedError) -> bool:
        """A topic is heard no more: whoever waits there is told, and the next one asks for it anew."""
        everywhere = self.reply_topics.forget(topic)
        for waiter in self._waiters.all() if everywhere else self._waiters.on(topic):
            waiter.deliver(error.again())
        return False

    def _went_down(self) -> None:
        if self._link.fatal is not None:
            self._tell_all(self._link.fatal)

    def _tell_all(self, event: Event) -> None:
        with self._lock:
            attending = list(self._attending)
        for deliver in attending:
            deliver(event.again() if isinstance(event, BrokerError) else event)


def _closed() -> ClientClosedError:
    return ClientClosedError("the client was closed")
