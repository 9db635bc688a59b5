"""When somebody has to see whether a waiting request waits in vain."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Final

from inferbus_worker.flow.job import Job

#: Looks at requests that wait no more, kept beyond as many again as wait, before they are swept out.
_FAR: Final = 64


class Looks:
    """The requests that have a `Job.look_at`, the soonest first. For its queue, under that one's lock.

    A request that waits no more stays here until its time has come, or until there are many of them: to find each one
    as it leaves would cost more.

    Args:
        waits: whether a request still waits.
    """

    def __init__(self, waits: Callable[[Job], bool]) -> None:
        self._waits = waits
        self._looks: list[tuple[float, int, Job]] = []
        self._counter = itertools.count()

    def __len__(self) -> int:
        return len(self._looks)

    def add(self, job: Job, look_at: float, waiting: int) -> None:
        """Look at a request that waits, one of `waiting`, when it asks for that."""
        heapq.heappush(self._looks, (look_at, next(self._counter), job))
        self._sweep(waiting)

    def due(self, now: float, waiting: int) -> list[Job]:
        """Those whose time has passed, perhaps also some that wait no more; each is named once."""
        self._sweep(waiting)
        passed: dict[Job, None] = {}
        while self._looks and self._looks[0][0] <= now:
            passed[heapq.heappop(self._looks)[2]] = None
        return list(passed)

    def _sweep(self, waiting: int) -> None:
        """Let go of requests that left long before; seldom enough to cost next to nothing."""
        if len(self._looks) <= 2 * waiting + _FAR:
            return
        looks: dict[Job, tuple[float, int, Job]] = {}
        for entry in sorted(self._looks, reverse=True):  # of those that came back more than once the first look stays
            if self._waits(entry[2]):
                looks[entry[2]] = entry
        self._looks = sorted(looks.values())
