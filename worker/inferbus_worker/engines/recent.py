"""Counts of the last seconds, in buckets of a second each: what they take of memory never grows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

#: Seconds that are looked back on.
WINDOW: Final = 10

Kind = TypeVar("Kind", bound=str)


class RecentCounts(Generic[Kind]):
    """How often each kind of thing has happened in the last ten seconds, right to a second. Not for two threads.

    Args:
        *kinds: what is counted.
        clock: monotonic seconds.
    """

    def __init__(self, *kinds: Kind, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts: dict[Kind, list[int]] = {kind: [0] * WINDOW for kind in kinds}
        self._second = int(clock())

    def add(self, kind: Kind) -> None:
        self._forget()
        self._counts[kind][self._second % WINDOW] += 1

    def __getitem__(self, kind: Kind) -> int:
        self._forget()
        return sum(self._counts[kind])

    def clear(self) -> None:
        for counts in self._counts.values():
            counts[:] = [0] * WINDOW

    def _forget(self) -> None:
        """Empty the buckets of the seconds that have begun since somebody looked."""
        now = int(self._clock())
        for second in range(max(self._second + 1, now - WINDOW + 1), now + 1):
            for counts in self._counts.values():
                counts[second % WINDOW] = 0
        self._second = max(self._second, now)
