"""What waits for the broker, and what has to go where that is more than there is room for.

Four kinds wait apart, and leave in the order in which they came:

- what nobody counts on, a repeated answer or the stats: dropped first, oldest first;
- refusals: dropped next, oldest first, so that a flood of them costs nobody an answer. The last `_KEPT_REFUSALS` stay,
  over the bound: one answer alone may fill that on a link that works, and who is refused behind it is to hear of it;
- what is owed: the replies of accepted requests, and of those that the broker keeps until they are answered. Dropped
  next, oldest first, but for their end: a small error stands in its place (promise 1: exactly one terminal reply);
- what is owed and small already. It stays. There are no more of these than were accepted before admission saw the
  congestion, or than the broker hands out unacknowledged.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterable
from typing import Final, Protocol

from inferbus_worker.replies.address import ReplyAddress
from inferbus_worker.replies.outgoing import Outgoing
from inferbus_worker.replies.stream import Backlog

#: What a stream or a message takes in memory besides its texts; measured, rounded up.
PER_MESSAGE: Final = 1024
_KEPT_REFUSALS: Final = 64


class Source(Protocol):
    """Something that has messages for the broker: a reply stream, or a message itself."""

    @property
    def address(self) -> ReplyAddress | None:
        """Where it goes; None of what is no reply."""
        ...

    @property
    def owed(self) -> bool:
        """Whether somebody counts on the end of it."""
        ...

    @property
    def refuses(self) -> bool:
        """Whether it says that a request was not accepted, and nothing else."""
        ...

    def outgoing(self) -> Iterable[Outgoing]:
        """What is to be published now, in order; that is had once."""
        ...

    def shed(self) -> tuple[int, bool]:
        """Let go of what can be spared: how many messages that were, and whether something is still to be said."""
        ...

    def drop(self) -> int:
        """Let go of everything: how many messages that were. Their numbers are used up: a gap is seen."""
        ...


class Outbox:
    """Bounded in bytes. Any thread puts; the network thread takes, and lets go of what is too much."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        #: The bytes of texts that wait, in reply streams or for the broker's acknowledgement.
        self.texts = Backlog()
        self._numbers = itertools.count()
        self._spare: deque[tuple[int, Source]] = deque()
        self._refusals: deque[tuple[int, Source]] = deque()
        self._owed: deque[tuple[int, Source]] = deque()
        self._small: deque[tuple[int, Source]] = deque()
        self._queues = (self._spare, self._refusals, self._owed, self._small)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._spare) + len(self._refusals) + len(self._owed) + len(self._small)

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        return len(self) * PER_MESSAGE + self.texts.size

    @property
    def congested(self) -> bool:
        return self.bytes > self._max_bytes

    def put(self, source: Source) -> None:
        """Let it wait."""
        with self._lock:
            queue = self._owed if source.owed else self._refusals if source.refuses else self._spare
            queue.append((next(self._numbers), source))

    def trim(self) -> int:
        """Let go of what there is no room for.

        Returns:
            How many messages had to go.
        """
        if not self.congested:
            return 0
        with self._lock:
            return self._make_room()

    def take(self) -> Source | None:
        """The one that has waited longest."""
        with self._lock:
            waiting = [queue for queue in self._queues if queue]
            if not waiting:
                return None
            oldest = waiting[0] if len(waiting) == 1 else min(waiting, key=_age)
            return oldest.popleft()[1]

    def waiting(self) -> list[Source]:
        """Everything that waits."""
        with self._lock:
            return [source for queue in self._queues for _, source in queue]

    def _make_room(self) -> int:
        # What waits alone stays, however large it is, and so does the newest of what is owed: on a link that works
        # they leave at once.
        dropped = 0
        while self.congested and self._spare and len(self) > 1:
            dropped += self._spare.popleft()[1].drop()
        while self.congested and len(self._refusals) > _KEPT_REFUSALS:
            dropped += self._refusals.popleft()[1].drop()
        kept = len(self._refusals) * PER_MESSAGE
        while self.bytes - kept > self._max_bytes and len(self._owed) > 1:
            number, source = self._owed.popleft()
            shed, has_more = source.shed()
            dropped += shed
            if has_more:
                self._small.append((number, source))
        return dropped


def _age(queue: deque[tuple[int, Source]]) -> int:
    return queue[0][0]
