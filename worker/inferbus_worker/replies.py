"""The sender: everything that is published goes through here, and the bound on what waits for the broker.

Worker threads leave their replies in the inbox; the link's network thread, which alone owns the socket, comes for them
whenever the socket takes more (concurrent publishing has interleaved two clients' bytes, and paho's own queue of unsent
messages has no bound). What waits meanwhile is bounded by `max_outbound_bytes`: over that the oldest replies are
dropped, and counted.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from inferbus_client.crossing import OnRefused
from inferbus_client.link_options import Handle, Incoming, Packed
from inferbus_client.network_loop import Feed
from inferbus_client.plain_publish import variable_length
from inferbus_client.topics import is_mqtt_string
from inferbus_worker.packed_properties import PackedProperties
from inferbus_worker.reply_stream import Backlog, Outgoing, ReplyAddress, ReplyStream, instead_of

log = logging.getLogger("inferbus.replies")

# QoS 1: more than this much unacknowledged, and the sender waits for the broker.
_UNACKNOWLEDGED_BYTES: Final = 1024 * 1024
_PER_MESSAGE: Final = 256
_FLUSH_LOOK: Final = 0.01

_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"


class Publisher(Protocol):
    """What the sender needs of the link. `send` and `has_room` are for the network thread."""

    def send(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Packed | None = None,
        on_refused: OnRefused | None = None,
    ) -> Handle | None: ...

    def feed_from(self, feed: Feed) -> None: ...

    def wake(self) -> None: ...

    @property
    def has_room(self) -> bool: ...

    @property
    def is_drained(self) -> bool: ...

    @property
    def is_v5(self) -> bool: ...

    @property
    def max_packet_size(self) -> int | None: ...


class _Source(Protocol):
    def outgoing(self) -> Iterable[Outgoing]: ...


class Unacknowledged:
    """QoS 1 messages that the broker has not acknowledged yet.

    paho's handles are asked, oldest first, rather than its `on_publish` callback used: paho makes two objects of some
    15 microseconds each for every call of it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._handles: deque[tuple[Handle, int]] = deque()
        self.bytes = 0

    def add(self, handle: Handle, size: int) -> None:
        self._handles.append((handle, size))
        self.bytes += size

    @property
    def has_room(self) -> bool:
        self.settle()
        return self.bytes < self._limit

    def settle(self) -> None:
        while self._handles and _has_left(self._handles[0][0]):
            self.bytes -= self._handles.popleft()[1]


def _has_left(handle: Handle) -> bool:
    try:
        return handle.is_published()
    except (RuntimeError, ValueError):
        return True  # lost with its connection: as good as gone


class Replies:
    """The inbox and its sender. `open` makes the reply stream of a request; `post` publishes anything else.

    Args:
        qos: of replies.
        max_bytes: bound on what waits for the broker.
        answered: told in the network thread when a QoS 1 request's terminal reply has been sent.
    """

    def __init__(
        self, *, qos: int, max_bytes: int, answered: Callable[[Incoming], None] = lambda _request: None
    ) -> None:
        self._qos = qos
        self._max_bytes = max_bytes
        self._inbox: deque[_Source] = deque()
        self._current: deque[Outgoing] = deque()
        self._noted = Backlog()
        self._unacknowledged = Unacknowledged(min(max_bytes, _UNACKNOWLEDGED_BYTES))
        self._link: Publisher | None = None
        self._warned = 0.0
        self._answered = answered
        self.dropped = 0

    def start(self, link: Publisher) -> None:
        """Let the link's network thread come for what is here."""
        self._link = link
        link.feed_from(self)

    def open(self, address: ReplyAddress) -> ReplyStream:
        """The reply stream of a new request."""
        return ReplyStream(address, self.post, self._noted)

    def post(self, source: _Source) -> None:
        """Publish what `source` has to say (a message says itself). From any thread."""
        self._inbox.append(source)
        # The newest stays, however large it is: on a link that works it leaves at once.
        while self.congested and len(self._inbox) > 1:
            self._drop_oldest()
        if self._link is not None:
            self._link.wake()

    @property
    def waiting(self) -> int:
        """Streams and messages that wait for the sender."""
        return len(self._inbox) + len(self._current)

    @property
    def backlog(self) -> int:
        """About how many bytes wait for the broker; the message that the sender has in hand counts as an empty one."""
        return self.waiting * _PER_MESSAGE + self._noted.size + self._unacknowledged.bytes

    @property
    def congested(self) -> bool:
        """Whether the broker takes so little that new requests should be refused: their replies could not leave."""
        return self.backlog > self._max_bytes

    def flush(self, timeout: float) -> bool:
        """Wait until everything said so far has left; False where it has not within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self._all_left():
            if time.monotonic() > deadline:
                return False
            time.sleep(_FLUSH_LOOK)
        return True

    # --- the network thread's side ---

    @property
    def ready(self) -> bool:
        """See `network_loop.Feed`."""
        return bool(self._inbox or self._current) and self._unacknowledged.has_room

    def feed(self) -> None:
        """Send while the socket takes it."""
        link = self._link
        while link is not None and link.has_room and self._unacknowledged.has_room:
            message = self._next()
            if message is None or not self._sent(link, message):
                return

    def _next(self) -> Outgoing | None:
        while not self._current:
            try:
                source = self._inbox.popleft()
            except IndexError:
                return None
            try:
                self._current.extend(source.outgoing())
            except Exception:
                log.exception("a reply could not be written")
        return self._current.popleft()

    def _sent(self, link: Publisher, message: Outgoing) -> bool:
        """Send a message, or drop one that can never be sent; False where there is no connection for it."""
        try:
            return self._send(link, message)
        except Exception:
            # Nothing that one reply holds may end the network thread, which serves all of them.
            log.exception("a reply could not be published")
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
        if qos:
            self._unacknowledged.add(handle, size)
        if message.terminal and message.address is not None and message.address.request is not None:
            self._answered(message.address.request)
        return True

    def _all_left(self) -> bool:
        self._unacknowledged.settle()
        idle = not self._inbox and not self._current and not self._unacknowledged.bytes
        return self._link is None or (idle and self._link.is_drained)

    # --- dropping ---

    def _drop_oldest(self) -> None:
        try:
            source = self._inbox.popleft()
        except IndexError:
            return
        for _ in source.outgoing():  # its numbers are used up, so that its requester sees the gap
            self._drop("the broker takes no more replies")

    def _refused(self, message: Outgoing, why: str) -> None:
        """The broker takes no such message: what can be said in its place goes first."""
        self._drop(why)
        smaller = instead_of(message)
        if smaller is not None and len(smaller.payload) < len(message.payload):
            self._current.appendleft(smaller)

    def _drop(self, why: str) -> None:
        self.dropped += 1
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
    user: list[tuple[str, str]] = []
    if message.status is not None:
        if is_mqtt_string(address.request_id):
            user.append(("requestId", address.request_id))
        user += [("sessionId", address.session_id), ("status", message.status)]
    if message.retry_after_ms is not None:
        user.append(("retryAfterMs", str(message.retry_after_ms)))
    return PackedProperties(_JSON if message.json else _TEXT, address.correlation_data, user)
