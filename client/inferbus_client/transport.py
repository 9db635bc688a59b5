"""One client's way to the broker and back: reply subscriptions, and each reply to the request that waits for it.

`Client` and `AsyncClient` share it. Nothing here waits for a reply: an event is handed to the `deliver` function of
the request that it belongs to, in the link's network thread, so `deliver` must not block.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from paho.mqtt.client import topic_matches_sub
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from inferbus_client import topics
from inferbus_client.announced import Announced
from inferbus_client.assembly import AnyReply
from inferbus_client.call import Call, cancel_payload
from inferbus_client.errors import BrokerError, BrokerRefusedError, ConnectionLostError, InvalidRequestError
from inferbus_client.link import Link
from inferbus_client.link_options import Incoming, LinkOptions
from inferbus_client.plain_publish import LARGEST
from inferbus_client.steps import Event, Signal, TextReply
from inferbus_client.wire import Failure, InvalidReplyError, decode_reply

log = logging.getLogger("inferbus.client")
# A library is silent unless the program that uses it says where its log goes.
logging.getLogger("inferbus").addHandler(logging.NullHandler())

Deliver = Callable[[Event], None]

_REPLY_QOS: Final = 1
#: Reply topics that stay subscribed although nobody waits there. The oldest go first.
_MAX_IDLE_TOPICS: Final = 1024
_PACKET_OVERHEAD: Final = 64


@dataclass(slots=True)
class _Waiter:
    """Who waits for a request's replies; `open` from a send to the terminal reply, so that a repeat is a stray."""

    deliver: Deliver
    open: bool = True


class Transport:
    """A link, its reply topics, and who waits on them.

    Args:
        options: how to reach the broker.
        qos: quality of service of requests.
        on_stray: called with every reply that nobody waits for (late, or a repeat), in the network thread.
    """

    def __init__(
        self, options: LinkOptions, *, qos: int = 1, on_stray: Callable[[AnyReply], None] | None = None
    ) -> None:
        self._link = Link(
            options, on_message=self._received, on_up=self._came_up, on_down=self._went_down, when_refused=self._refused
        )
        self._qos = qos
        self._on_stray = on_stray
        self._lock = threading.Lock()
        self._waiting: dict[str, _Waiter] = {}
        self._by_topic: dict[str, str] = {}
        self._listening: OrderedDict[str, None] = OrderedDict()
        self._wildcard: str | None = None
        self._announced: Announced | None = None
        self.repeats_are_safe = False

    # --- lifecycle ---

    def open(self, timeout: float) -> None:
        """Connect.

        Raises:
            BrokerError: as `Link.connect` says.
        """
        self._link.connect(timeout)

    def close(self) -> None:
        """Disconnect; whoever still waits for a reply is told."""
        self._tell_all(ConnectionLostError("the client was closed"))
        self._link.close()

    @property
    def is_up(self) -> bool:
        return self._link.is_up

    @property
    def is_v5(self) -> bool:
        return self._link.is_v5

    # --- hearing ---

    def is_listening(self, topic: str) -> bool:
        covered = self._wildcard is not None and topic_matches_sub(self._wildcard, topic)
        return covered or topic in self._listening

    def listen_to_every_session(self, topic_filter: str, timeout: float) -> None:
        """One wildcard subscription instead of one for each session. Raises what `listen` raises."""
        self.listen(topic_filter, timeout)
        self._wildcard = topic_filter

    def listen(self, topic: str, timeout: float) -> None:
        """Subscribe to a reply topic, unless that is done; returns when the broker granted it.

        Raises:
            BrokerRefusedError: the broker refuses the subscription.
            ConnectionLostError: there is no connection, or no answer in time.
        """
        if self.is_listening(topic):
            return
        if not self._link.wait_up(timeout):
            raise self._link.fatal or ConnectionLostError("there is no connection to the broker")
        self._link.subscribe({topic: _REPLY_QOS}, timeout)
        with self._lock:
            self._listening[topic] = None
        self._forget_idle_topics()

    @contextmanager
    def waiting(self, call: Call, deliver: Deliver) -> Iterator[None]:
        """While inside, replies to `call` go to `deliver`.

        Raises:
            InvalidRequestError: the request id is in use.
        """
        with self._lock:
            if call.request_id in self._waiting:
                raise InvalidRequestError(Failure("invalid_request", "requestId: it is in flight already."))
            self._waiting[call.request_id] = _Waiter(deliver)
            self._by_topic[call.reply_topic] = call.request_id
            if call.reply_topic in self._listening:
                self._listening.move_to_end(call.reply_topic)
        try:
            yield
        finally:
            with self._lock:
                del self._waiting[call.request_id]
                if self._by_topic.get(call.reply_topic) == call.request_id:
                    del self._by_topic[call.reply_topic]

    def _forget_idle_topics(self) -> None:
        with self._lock:
            idle = [topic for topic in self._listening if topic not in self._by_topic and topic != self._wildcard]
            surplus = idle[: max(len(idle) - _MAX_IDLE_TOPICS, 0)]
            for topic in surplus:
                del self._listening[topic]
        for topic in surplus:
            self._link.unsubscribe(topic)

    def hear_announcements(self, timeout: float) -> Announced:
        """What workers say of themselves, heard on this connection from the first call on.

        Raises:
            BrokerError: the broker refuses that, or does not answer.
        """
        if self._announced is None:
            announced, topic_filter = Announced(), topics.presence("+")
            self._announced = announced
            try:
                self._link.subscribe({topic_filter: _REPLY_QOS}, timeout)
            except BrokerError:
                # A broker may disconnect whoever asks for too much, so it is not asked again.
                self._link.unsubscribe(topic_filter)
                self._announced = None
                raise
        return self._announced

    # --- sending, from any thread ---

    def send(self, call: Call, remaining: float) -> bool:
        """Publish a call with `remaining` seconds until its deadline; False where no connection took it.

        Raises:
            InvalidRequestError: it is larger than the broker takes, or than a packet can be. Sent all the same, it
                would be sent again with every reconnect, each time to be refused.
        """
        payload = call.payload(deadline_ms=round(remaining * 1000))
        limit = min(self._link.max_packet_size or LARGEST, LARGEST)
        if len(payload) + len(call.topic) + _PACKET_OVERHEAD > limit:
            raise InvalidRequestError(Failure("message_too_large"))
        if (waiter := self._waiting.get(call.request_id)) is not None:
            waiter.open = True
        expiry = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        expiry.MessageExpiryInterval = max(math.ceil(remaining), 1)
        return self._link.publish(
            call.topic,
            payload,
            qos=self._qos,
            properties=expiry,
            on_refused=lambda error: self._deliver(call.request_id, error),
        )

    def cancel(self, call: Call) -> None:
        if call.cancel_topic is not None:
            self.publish_cancel(call.cancel_topic, call.request_id)

    def publish_cancel(self, topic: str, request_id: str | None) -> None:
        self._link.publish(topic, cancel_payload(request_id), qos=self._qos)

    # --- the link's callbacks; all run in its network thread ---

    def _deliver(self, request_id: str, event: Event) -> None:
        if (waiter := self._waiting.get(request_id)) is not None:
            waiter.deliver(event)

    def _received(self, message: Incoming) -> None:
        if self._announced is not None and self._announced.received(message):
            return
        if message.retain or message.cut:
            return
        try:
            reply = decode_reply(message.payload)
        except InvalidReplyError:
            self._received_text(message)
            return
        self.repeats_are_safe = True
        waiter = self._waiting.get(reply.request_id)
        if waiter is not None and waiter.open:
            waiter.open = not reply.terminal
            waiter.deliver(reply)
        elif self._on_stray is not None:
            self._on_stray(reply)

    def _received_text(self, message: Incoming) -> None:
        """A reply in text names its request in a user property, at best; else it is for whoever waits there.

        Once the worker has spoken JSON, text that names no request is somebody else's noise.
        """
        request_id = dict(message.user_properties).get("requestId")
        if request_id is None and not self.repeats_are_safe:
            request_id = self._by_topic.get(message.topic)
        waiter = self._waiting.get(request_id) if request_id is not None else None
        if waiter is None or not waiter.open:
            log.debug("a reply in text that nobody waits for, on %s", message.topic)
            return
        waiter.open = False
        waiter.deliver(TextReply(message.payload.decode(errors="replace")))

    def _refused(self, topic: str, error: BrokerRefusedError) -> bool:
        """A topic is heard no more: whoever waits there is told, and the next one asks for it anew."""
        with self._lock:
            self._listening.pop(topic, None)
            everywhere = topic == self._wildcard
            self._wildcard = None if everywhere else self._wildcard
            there = [self._by_topic.get(topic)]
            waiting = [waiter for name, waiter in self._waiting.items() if everywhere or name in there]
        for waiter in waiting:
            waiter.deliver(error)
        return False

    def _came_up(self) -> None:
        self._tell_all(Signal.RECONNECTED)

    def _went_down(self) -> None:
        if self._link.fatal is not None:
            self._tell_all(self._link.fatal)

    def _tell_all(self, event: Event) -> None:
        with self._lock:
            waiting = list(self._waiting.values())
        for waiter in waiting:
            waiter.deliver(event)
