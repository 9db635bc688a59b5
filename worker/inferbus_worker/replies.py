"""The sender: the only thread that publishes, and the bound on what waits for the broker.

Concurrent publishing has interleaved two clients' bytes, and paho's own queue of unsent messages has no bound. So one
thread publishes, and it publishes only while less than `max_outbound_bytes` lie with paho; what waits here meanwhile
has the same bound, and what is over it is dropped and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any, Protocol

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from inferbus_worker.reply_stream import Outgoing, ReplyAddress, ReplyStream

log = logging.getLogger("inferbus.replies")

# Below this much outstanding, paho may have it at once; above, publishing waits for the socket.
_PAHO_BYTES = 1024 * 1024
_PER_MESSAGE = 256


class Publisher(Protocol):
    """What the sender needs of the link."""

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, properties: Any = None
    ) -> int | None: ...

    def wait_up(self, timeout: float | None) -> bool: ...

    @property
    def is_v5(self) -> bool: ...

    @property
    def max_packet_size(self) -> int | None: ...


class _Source(Protocol):
    def outgoing(self) -> Iterator[Outgoing]: ...


class Outstanding:
    """Bytes handed to paho and not yet written (QoS 0) or acknowledged (QoS 1)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sizes: dict[int, int] = {}
        self._early: set[int] = set()
        self._room = threading.Condition()
        self.bytes = 0

    def wait_for_room(self, timeout: float) -> bool:
        with self._room:
            return self._room.wait_for(lambda: self.bytes < self._limit, timeout)

    def wait_until_empty(self, timeout: float) -> bool:
        with self._room:
            return self._room.wait_for(lambda: not self._sizes, timeout)

    def add(self, mid: int, size: int) -> None:
        with self._room:
            if mid in self._early:
                # The network thread was quicker than our caller's return from `publish`.
                self._early.discard(mid)
                return
            self._sizes[mid] = size
            self.bytes += size

    def release(self, mid: int) -> None:
        """Called by the link when a message has left. Runs under paho's lock: takes no other lock than its own."""
        with self._room:
            size = self._sizes.pop(mid, None)
            if size is None:
                self._early.add(mid)
                return
            self.bytes -= size
            self._room.notify()

    def forget(self) -> None:
        """The connection is gone, and with it whatever was written to it."""
        with self._room:
            self._sizes.clear()
            self._early.clear()
            self.bytes = 0
            self._room.notify_all()


class Replies:
    """Owns the thread `sender`. `open` makes the reply stream of a request; `post` publishes anything else."""

    def __init__(self, *, qos: int, max_bytes: int) -> None:
        self._qos = qos
        self._max_bytes = max_bytes
        self._inbox: SimpleQueue[_Source | None] = SimpleQueue()
        self._waiting = 0
        self._link: Publisher | None = None
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._deadline: float | None = None
        self._warned = 0.0
        self.outstanding = Outstanding(min(max_bytes, _PAHO_BYTES))
        self.dropped = 0

    def start(self, link: Publisher) -> None:
        self._link = link
        self._thread.start()

    def open(self, address: ReplyAddress) -> ReplyStream:
        """The reply stream of a new request."""
        return ReplyStream(address, self._inbox.put)

    def post(self, message: Outgoing) -> None:
        """Publish something that is no reply: presence, stats."""
        self._inbox.put(message)

    @property
    def waiting(self) -> int:
        """Streams and messages that wait for the sender."""
        return self._inbox.qsize()

    @property
    def congested(self) -> bool:
        """Whether the broker takes so little that new requests should be refused: their replies could not leave."""
        return self._inbox.qsize() * _PER_MESSAGE + self.outstanding.bytes > self._max_bytes

    def stop(self, timeout: float) -> bool:
        """Flush what was said before and end the thread, within `timeout` seconds.

        Returns:
            Whether all of it left.
        """
        self._deadline = time.monotonic() + timeout
        self._inbox.put(None)
        self._thread.join(timeout)
        left = max(0.0, self._deadline - time.monotonic())
        return not self._thread.is_alive() and self.outstanding.wait_until_empty(left)

    def _run(self) -> None:
        while (source := self._inbox.get()) is not None:
            try:
                for message in source.outgoing():
                    self._publish(message)
            except Exception:
                log.exception("a reply could not be published")

    def _publish(self, message: Outgoing) -> None:
        link = self._link
        assert link is not None  # noqa: S101 - start() set it before this thread ran
        size = len(message.payload) + len(message.topic) + _PER_MESSAGE
        if link.max_packet_size is not None and size > link.max_packet_size:
            self._drop(f"a reply of {size} bytes is over the broker's maximum packet size")
            return
        qos = self._qos if message.qos is None else message.qos
        while not self._out_of_time():
            if not link.wait_up(0.5) or not self.outstanding.wait_for_room(0.5):
                if self._backlog() > self._max_bytes:
                    self._drop("the broker takes no more replies")
                    return
                continue
            mid = link.publish(
                message.topic,
                message.payload,
                qos=qos,
                retain=message.retain,
                properties=_properties(message) if link.is_v5 else None,
            )
            if mid is not None:
                self.outstanding.add(mid, size)
                return
        self._drop("the broker took no reply until the end")

    def _backlog(self) -> int:
        return self._inbox.qsize() * _PER_MESSAGE + self.outstanding.bytes

    def _out_of_time(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def _drop(self, why: str) -> None:
        self.dropped += 1
        now = time.monotonic()
        if now - self._warned > 1:
            self._warned = now
            log.warning("dropped a reply: %s (%d so far)", why, self.dropped)


def _properties(message: Outgoing) -> Properties | None:
    """MQTT 5's conveniences: what a text reply cannot say, and the requester's own correlation data."""
    address = message.address
    if address is None:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = "application/json" if message.json else "text/plain; charset=utf-8"
    properties.PayloadFormatIndicator = 1
    if address.correlation_data is not None:
        properties.CorrelationData = address.correlation_data
    if message.status is not None:
        pairs = [("requestId", address.request_id), ("sessionId", address.session_id), ("status", message.status)]
        if message.retry_after_ms is not None:
            pairs.append(("retryAfterMs", str(message.retry_after_ms)))
        properties.UserProperty = pairs
    return properties
