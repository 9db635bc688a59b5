"""QoS 1 messages that the broker has not acknowledged yet. For the network thread, but for `len` and `messages`.

paho's handles are asked, oldest first, rather than its `on_publish` callback used: paho makes two objects of some 15
microseconds each for every call of it. Nor is paho's own window used: what it holds back looks sent, and the
acknowledgement of a request would overtake its reply.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from inferbus_client.mqtt.message import Handle
from inferbus_worker.replies.outgoing import Outgoing
from inferbus_worker.replies.stream import Backlog


class _Sent(NamedTuple):
    handle: Handle
    message: Outgoing
    size: int


class Unacknowledged:
    """Bounded in bytes, and in number by what the broker takes at once (MQTT 5's Receive Maximum).

    Args:
        limit: bytes in flight, beyond which nothing more is sent.
        texts: where these bytes are counted, as part of what waits.
    """

    def __init__(self, limit: int, texts: Backlog) -> None:
        self._limit = limit
        self._texts = texts
        self._sent: deque[_Sent] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._sent)

    def messages(self) -> list[Outgoing]:
        """All of them; from any thread."""
        return [sent.message for sent in self._sent.copy()]

    def has_room(self, window: int) -> bool:
        """Whether one more may be sent to a broker that takes `window` messages at once."""
        return self._bytes < self._limit and len(self._sent) < window

    def add(self, handle: Handle, message: Outgoing, size: int) -> None:
        """A message has been sent."""
        self._sent.append(_Sent(handle, message, size))
        self._count(size)

    def forget(self, message: Outgoing) -> None:
        """The message is not to be sent again."""
        for sent in [sent for sent in self._sent if sent.message is message]:
            self._sent.remove(sent)
            self._count(-sent.size)

    def settle(self) -> tuple[list[Outgoing], list[Outgoing]]:
        """The messages that have arrived since, and those that never will and have to be sent again."""
        arrived: list[Outgoing] = []
        lost: list[Outgoing] = []
        while self._sent and (fate := _fate(self._sent[0].handle)) is not None:
            done = self._sent.popleft()
            self._count(-done.size)
            (arrived if fate else lost).append(done.message)
        return arrived, lost

    def _count(self, change: int) -> None:
        self._bytes += change
        self._texts.add(change)


def _fate(handle: Handle) -> bool | None:
    """Whether the broker has it; None while nobody knows."""
    try:
        return handle.is_published() or None
    except (RuntimeError, ValueError):
        return False
