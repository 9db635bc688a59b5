"""Collects a message's packet from what is read, page after page, and keeps no more of it than its beginning.

A stranger's message may have 268 MB. What is over the limit is let go by as it comes; what is kept says whose message
it is, where a refusal goes, and how to acknowledge it.
"""

from __future__ import annotations

from typing import Final

# The topic's length, the longest topic, the packet identifier, the properties' length: without them nobody can refuse
# and acknowledge a message. Nor is a worker's own presence longer, which has to come back whole however little it takes
# of others.
_FRONT: Final = 2 + 65535 + 2 + 4
_CONTINUES: Final = 0x80
_LONGEST_LENGTH: Final = 4


class BrokenStreamError(ConnectionError):
    """A packet whose length makes no sense: nobody knows where the next one begins."""


class PublishReader:
    """Takes one packet at a time; afterwards `first` and `body` hold it, until `clear`.

    Args:
        limit: bytes of a packet's body that are kept; 64 KiB are, in any case.
    """

    def __init__(self, limit: int) -> None:
        self._limit = max(limit, _FRONT)
        self.clear()

    def clear(self) -> None:
        """Forget the packet; the next one may come."""
        self.first: int | None = None
        self.body = bytearray()
        self._length = self._length_bytes = 0
        self._length_is_known = False
        #: Bytes of the body that have yet to come, once its length is known.
        self.missing = 0

    @property
    def under_way(self) -> bool:
        """Whether a packet has begun."""
        return self.first is not None

    @property
    def cut(self) -> bool:
        """Whether there is more of the packet than `body` keeps."""
        return self._length > self._limit

    def take(self, page: bytes, start: int) -> tuple[bool, int]:
        """Take what belongs to the packet.

        Args:
            page: what has been read.
            start: from where on the packet's bytes stand there.

        Returns:
            Whether the packet is whole now, and up to where the page has been taken.

        Raises:
            BrokenStreamError: its length makes no sense.
        """
        if self.first is None:
            self.first, start = page[start], start + 1
        if not self._length_is_known:
            start = self._take_length(page, start)
        end = min(start + self.missing, len(page))
        self.missing -= end - start
        self.body += page[start : min(end, start + self._limit - len(self.body))]
        return self._length_is_known and not self.missing, end

    def _take_length(self, page: bytes, start: int) -> int:
        for at in range(start, len(page)):
            byte = page[at]
            self._length |= (byte & 0x7F) << 7 * self._length_bytes
            self._length_bytes += 1
            if not byte & _CONTINUES:
                self._length_is_known, self.missing = True, self._length
                return at + 1
            if self._length_bytes == _LONGEST_LENGTH:
                raise BrokenStreamError("the length of a packet has no end")
        return len(page)
