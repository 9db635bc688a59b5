"""The sender: everything that is published goes through here, and the bound on what waits for the broker.

Whoever has something to say leaves it in the outbox: the engine's thread deltas, admission refusals, worker threads and
`endings` terminal replies. The link's network thread, which alone owns the socket, comes for it whenever the socket
takes more (concurrent publishing has interleaved two clients' bytes, and paho's own queue of unsent messages has no
bound). What waits meanwhile is bounded by `max_outbound_bytes`: over that something has to go, and is counted.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from typing import Final, Protocol, Unpack

from inferbus_client.contract.topics import is_read_by_all
from inferbus_client.mqtt.crossing import REFUSED
from inferbus_client.mqtt.message import Handle, PublishOptions
from inferbus_client.mqtt.network_loop import Feed
from inferbus_client.mqtt.plain_publish import variable_length
from inferbus_worker.replies.address import Owed, Receipt, ReplyAddress
from inferbus_worker.replies.outbox import PER_MESSAGE, Outbox, Source
from inferbus_worker.replies.outgoing import Outgoing, instead_of
from inferbus_worker.replies.packets import PackedProperties
from inferbus_worker.replies.stream import ReplyStream
from inferbus_worker.replies.unacknowledged import Unacknowledged

log = logging.getLogger("inferbus.replies")

# QoS 1: more than this much unacknowledged, and the sender waits for the broker.
_UNACKNOWLEDGED_BYTES: Final = 1024 * 1024
_FLUSH_LOOK: Final = 0.01

_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"
#: What has no status is JSON, and says nothing in its properties that it does not say itself.
_OF_A_DELTA: Final = PackedProperties(_JSON, None, ())


class Publisher(Protocol):
    """What the sender needs of the link. `send` and `has_room` are for the network thread."""

    def send(self, topic: str, payload: bytes, **options: Unpack[PublishOptions]) -> Handle | None: ...

    def feed_from(self, feed: Feed) -> None: ...

    def wake(self) -> None: ...

    @property
    def has_room(self) -> bool: ...

    @property
    def is_up(self) -> bool: ...

    @property
    def is_drained(self) -> bool: ...

    @property
    def is_v5(self) -> bool: ...

    @property
    def max_packet_size(self) -> int | None: ...

    @property
    def receive_maximum(self) -> int: ...


class HearsOfEnds(Protocol):
    """Told when a terminal reply has arrived at the broker (QoS 1), or has been written behind all others (QoS 0)."""

    def __call__(self, receipt: Receipt | Owed, /, *, arrived: bool) -> None: ...


def _nobody(_receipt: Receipt | Owed, *, arrived: bool) -> None:
    del arrived


class Sender:
    """The outbox and its sender. `open` makes the reply stream of a request; `post` publishes anything else.

    Args:
        qos: of replies.
        max_bytes: bound on what waits for the broker.
        delta_interval: seconds between two deltas of a stream, at least.
        answered: told in the network thread of terminal replies that an acknowledgement waits for.
    """

    def __init__(
        self, *, qos: int, max_bytes: int, delta_interval: float = 0.0, answered: HearsOfEnds = _nobody
    ) -> None:
        self._qos = qos
        self._max_bytes = max_bytes
        self._delta_interval = delta_interval
        self._outbox = Outbox(max_bytes)
        self._current: deque[Outgoing] = deque()
        # Half of the room at most: the rest is for what waits to be sent.
        self._unacknowledged = Unacknowledged(min(max_bytes // 2, _UNACKNOWLEDGED_BYTES), self._outbox.texts)
        self._link: Publisher | None = None
        self._warned = 0.0
        self._answered = answered
        self._last_reply = -math.inf
        self.dropped = 0

    def start(self, link: Publisher) -> None:
        """Let the link's network thread come for what is here."""
        self._link = link
        link.feed_from(self)

    def open(self, address: ReplyAddress) -> ReplyStream:
        """The reply stream of a new request."""
        return ReplyStream(address, self.post, self._outbox.texts, self._delta_interval)

    def post(self, source: Source) -> None:
        """Publish what `source` has to say (a message says itself). From any thread."""
        self._outbox.put(source)
        if self._link is not None:
            self._link.wake()

    def trim(self) -> None:
        """Let go of what there is no room for. For the network thread; while nothing connects it, for whoever looks."""
        dropped = self._outbox.trim()
        if dropped:
            self._drop("the broker takes no more replies", dropped)

    @property
    def waiting(self) -> int:
        """Streams and messages that wait for the sender."""
        return len(self._outbox) + len(self._current)

    @property
    def backlog(self) -> int:
        """About how many bytes wait for the broker; the message that the sender has in hand counts as an empty one."""
        return self._outbox.bytes + len(self._current) * PER_MESSAGE

    @property
    def congested(self) -> bool:
        """Whether the broker takes so little that new requests should be refused: their replies could not leave."""
        return self.backlog > self._max_bytes

    def levels(self) -> dict[str, tuple[int, int]]:
        """How full it is, by the name that the stats give it."""
        return {"outboundBytes": (self.backlog, self._max_bytes)}

    def flush(self, timeout: float) -> bool:
        """Wait until everything said so far has left; False where it has not within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self._all_left():
            if time.monotonic() > deadline:
                return False
            time.sleep(_FLUSH_LOOK)
        return True

    def owes(self, seconds: float) -> bool:
        """Whether a reply has still to leave, or left so few `seconds` ago that the broker may not have read it yet."""
        if self._link is not None and self._link.is_up and time.monotonic() - self._last_reply < seconds:
            return True
        waiting = (*self._outbox.waiting(), *self._current.copy(), *self._unacknowledged.messages())
        return any(each.address is not None for each in waiting)

    # --- the network thread's side ---

    @property
    def ready(self) -> bool:
        """See `network_loop.Feed`."""
        self._settle()
        return bool(self.waiting) and self._has_room

    def feed(self) -> None:
        """Acknowledge requests whose replies have arrived, and send while the socket takes it."""
        link = self._link
        self._settle()
        while link is not None and link.has_room and self._has_room:
            message = self._next()
            if message is None or not self._sent(link, message):
                return

    @property
    def _has_room(self) -> bool:
        return self._link is not None and self._unacknowledged.has_room(self._link.receive_maximum)

    def _settle(self) -> None:
        if not self._unacknowledged:
            return
        arrived, lost = self._unacknowledged.settle()
        for message in arrived:
            if message.terminal:
                self._ended(message.address, arrived=True)
        self._current.extendleft(reversed(lost))

    def _next(self) -> Outgoing | None:
        while not self._current:
            source = self._outbox.take()
            if source is None:
                return None
            try:
                self._current.extend(source.outgoing())
            except Exception:
                log.exception("a reply could not be written")
                self._ended(source.address, arrived=True)  # to deliver the request again would not change that
        return self._current.popleft()

    def _sent(self, link: Publisher, message: Outgoing) -> bool:
        """Send a message, or drop one that can never be sent; False where there is no connection for it."""
        try:
            return self._send(link, message)
        except Exception:
            # Nothing that one reply holds may end the network thread, which serves all of them.
            log.exception("a reply could not be published")
            self._ended(message.address, arrived=True)
            return True

    def _send(self, link: Publisher, message: Outgoing) -> bool:
        properties = _properties(message) if link.is_v5 else None
        qos = self._qos if message.qos is None else message.qos
        size = _packet_size(message, properties) if qos or link.max_packet_size is not None else 0
        if link.max_packet_size is not None and size > link.max_packet_size:
            self._refused(message, f"{size} bytes are over the broker's maximum packet size")
            return True
        handle = link.send(
            message.topic,
            message.payload,
            qos=qos,
            retain=message.retain,
            properties=properties,
            on_refused=lambda error: self._refused(message, error.reason),
        )
        if handle is None:
            self._current.appendleft(message)
            return False
        if handle is REFUSED:
            return True
        if message.address is not None:
            self._last_reply = time.monotonic()
        if qos:
            self._unacknowledged.add(handle, message, size + PER_MESSAGE)
        elif message.terminal:
            self._ended(message.address, arrived=False)
        return True

    def _ended(self, address: ReplyAddress | None, *, arrived: bool) -> None:
        if address is not None and address.receipt is not None:
            self._answered(address.receipt, arrived=arrived)

    def _all_left(self) -> bool:
        idle = not self.waiting and not len(self._unacknowledged)
        return self._link is None or (idle and self._link.is_drained)

    def _refused(self, message: Outgoing, why: str) -> None:
        """The broker takes no such message: what can be said in its place goes first."""
        self._unacknowledged.forget(message)
        self._drop(why)
        smaller = instead_of(message)
        if smaller is not None and len(smaller.payload) < len(message.payload):
            self._current.appendleft(smaller)
        elif message.terminal:
            self._ended(message.address, arrived=True)  # nobody can be told, now or when it is delivered again

    def _drop(self, why: str, count: int = 1) -> None:
        self.dropped += count
        now = time.monotonic()
        if now - self._warned > 1:
            self._warned = now
            log.warning("dropped a reply: %s (%d so far)", why, self.dropped)


def _packet_size(message: Outgoing, properties: PackedProperties | None) -> int:
    """The size of the PUBLISH packet, correlation data included: over the broker's maximum it closes the connection."""
    body = 2 + len(message.topic.encode()) + 2 + len(message.payload)
    body += len(properties.pack()) if properties is not None else 1
    return 1 + len(variable_length(body)) + body


def _properties(message: Outgoing) -> PackedProperties | None:
    """MQTT 5's conveniences: what a text reply cannot say, and the requester's own correlation data."""
    address = message.address
    if address is None:
        return None
    told = address.trace.told if address.trace is not None and message.json else ()
    if message.status is None and address.correlation_data is None and not told:
        return _OF_A_DELTA
    user: list[tuple[str, str]] = []
    if message.status is not None:
        if is_read_by_all(address.request_id):
            user.append(("requestId", address.request_id))
        user += [("sessionId", address.session_id), ("status", message.status)]
    if message.retry_after_ms is not None:
        user.append(("retryAfterMs", str(message.retry_after_ms)))
    user += told
    return PackedProperties(_JSON if message.json else _TEXT, address.correlation_data, user)
