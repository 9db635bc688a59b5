"""What waits for the broker, and what has to go where that is more than there is room for.

Three kinds wait apart, and leave in the order in which they came:

- replies to requests that were never accepted, and what else nobody counts on: dropped first, oldest first, so that a
  flood of refusals costs nobody an answer;
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

from inferbus_worker.reply_stream import Backlog, Outgoing, ReplyAddress

#: What a stream or a message takes in memory besides its texts; measured, rounded up.
PER_MESSAGE: Final = 1024


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

    def outgoing(self) -> Iterable[Outgoing]:
        """What is to be published now, in order; that is had once."""
        ...

    def shed(self) -> tuple[int, bool]:
        """Let go of what can be spared: how many messages that were, and whether something is still to be said."""
        ...


class Outbox:
    """Bounded in bytes. Any thread puts, the network thread takes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        #: The bytes of texts that wait, in reply streams or for the broker's acknowledgement.
        self.texts = Backlog()
        self._numbers = itertools.count()
        self._spare: deque[tuple[int, Source]] = deque()
        self._owed: deque[tuple[int, Source]] = deque()
        self._small: deque[tuple[int, Source]] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._spare) + len(self._owed) + len(self._small)

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        return len(self) * PER_MESSAGE + self.texts.size

    @property
    def congested(self) -> bool:
        return self.bytes > self._max_bytes

    def put(self, source: Source) -> int:
        """Let it wait.

        Returns:
            How many messages had to go for it.
        """
        with self._lock:
            (self._owed if source.owed else self._spare).append((next(self._numbers), source))
            return self._make_room(source) if self.congested else 0

    def take(self) -> Source | None:
        """The one that has waited longest."""
        with self._lock:
            waiting = [queue for queue in (self._spare, self._owed, self._small) if queue]
            if not waiting:
                return None
            oldest = waiting[0] if len(waiting) == 1 else min(waiting, key=_age)
            return oldest.popleft()[1]

    def waiting(self) -> list[Source]:
        """Everything that waits."""
        with self._lock:
            return [source for queue in (self._spare, self._owed, self._small) for _, source in queue]

    def _make_room(self, newest: Source) -> int:
        # What waits alone stays, however large it is, and so does the newest of what is owed: on a link that works
        # they leave at once.
        dropped = 0
        while self.congested and self._spare and len(self) > 1:
            dropped += sum(1 for _ in self._spare.popleft()[1].outgoing())  # its numbers are used up: a gap is seen
        while self.congested and self._owed and self._owed[0][1] is not newest:
            number, source = self._owed.popleft()
            shed, has_more = source.shed()
            dropped += shed
            if has_more:
                self._small.append((number, source))
        return dropped


def _age(queue: deque[tuple[int, Source]]) -> int:
    return queue[0][0]
