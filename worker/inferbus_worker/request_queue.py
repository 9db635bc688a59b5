"""The bounded fair queue: the only place where a request ever waits.

Fair between projects: stride scheduling (Waldspurger and Weihl, 1995) within a priority, so that projects get turns in
proportion to their weights; between priorities the class goes first whose oldest request has the highest priority plus
age, so that nothing waits for ever. Room is fair as well: half of it is for whoever comes, the other half is kept for
the projects by weight, so that one project's flood cannot have all of it.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from inferbus_worker.job import Job
from inferbus_worker.settings import ProjectSettings

# Deadlines of requests that wait no more, kept beyond as many again as wait, before they are swept out.
_FAR_DEADLINES = 64


@dataclass(slots=True)
class _Lane:
    """One project's requests, oldest first. `turn` is its virtual time: it grows by 1/weight with every one taken."""

    weight: float
    priority: int
    reserved: int
    jobs: deque[Job] = field(default_factory=deque)
    turn: float = 0.0


class RequestQueue:
    """Bounded, fair, and closable. One thread puts; any number take."""

    def __init__(
        self,
        size: int,
        projects: Mapping[str, ProjectSettings],
        *,
        ageing: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        total = sum(project.weight for project in projects.values())
        self._lanes = {
            name: _Lane(project.weight, project.priority, int(size / 2 * project.weight / total))
            for name, project in projects.items()
        }
        self._shared = size - sum(lane.reserved for lane in self._lanes.values())
        self._size = size
        self._ageing = max(ageing, 0.001)
        self._clock = clock
        self._length = 0
        # The virtual time of each priority: lanes of different priorities never compete, so they share none.
        self._turns = dict.fromkeys((lane.priority for lane in self._lanes.values()), 0.0)
        self._deadlines: list[tuple[float, int, Job]] = []
        self._counter = itertools.count()
        self._lock = threading.Lock()
        # Takers that wait, each behind a lock of its own; the latest goes first, since its stack is still warm. One is
        # woken at a time, and wakes the next when it has found work and sees more: where turns are short it does all of
        # them before another could begin, and to wake one for every request cost a fifth of the worker's time.
        self._idle: list[threading.Lock] = []
        self._waking = False
        self._closed = False

    def __len__(self) -> int:
        return self._length

    @property
    def size(self) -> int:
        return self._size

    def position(self, project: str) -> int | None:
        """The place a request of this project would get (0: next), or None where there is no room.

        Takers only make room, and one thread alone puts: what this says holds until that thread's next `put`.
        """
        with self._lock:
            lane = self._lanes[project]
            if len(lane.jobs) < lane.reserved:
                return self._length
            taken = sum(max(0, len(other.jobs) - other.reserved) for other in self._lanes.values())
            return self._length if taken < self._shared else None

    def put(self, job: Job) -> None:
        """Append a request, after `position` said that there is room."""
        with self._lock:
            lane = self._lanes[job.key.project]
            if not lane.jobs:
                # A project that was away starts level with the others: idling earns no credit.
                lane.turn = max(lane.turn, self._turns[lane.priority])
            lane.jobs.append(job)
            self._length += 1
            if job.deadline is not None:
                heapq.heappush(self._deadlines, (job.deadline, next(self._counter), job))
                self._forget_deadlines()
            taker = self._next_taker()
        if taker is not None:
            taker.release()

    def take(self) -> Job | None:
        """The next request, waiting for one; None once the queue is closed and empty."""
        woken = threading.Lock()
        is_woken = False
        while True:
            with self._lock:
                self._waking = self._waking and not is_woken
                lane = self._next_lane()
                if lane is not None:
                    job = self._take_from(lane)
                    taker = self._next_taker()
                    break
                if self._closed:
                    return None
                woken.acquire(blocking=False)
                self._idle.append(woken)
            is_woken = woken.acquire()  # until `put`, `close` or another taker releases it
        if taker is not None:
            taker.release()
        return job

    def remove(self, job: Job) -> bool:
        """Take a waiting request out (it was cancelled, or its deadline passed); False where it waits no more."""
        with self._lock:
            try:
                self._lanes[job.key.project].jobs.remove(job)
            except ValueError:
                return False
            self._length -= 1
            return True

    def expired(self) -> list[Job]:
        """The requests whose deadline has passed, perhaps also some that wait no more; each is named once."""
        now = self._clock()
        with self._lock:
            passed = []
            while self._deadlines and self._deadlines[0][0] <= now:
                passed.append(heapq.heappop(self._deadlines)[2])
            return passed

    def close(self) -> None:
        """Let the takers end, after the requests that were put before."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for taker in idle:
            taker.release()

    def _next_taker(self) -> threading.Lock | None:
        """Whom to wake now: nobody while one that was woken has not looked yet, or while there is nothing to take."""
        if self._waking or not self._length or not self._idle:
            return None
        self._waking = True
        return self._idle.pop()

    def _take_from(self, lane: _Lane) -> Job:
        self._length -= 1
        self._turns[lane.priority] = lane.turn
        lane.turn += 1 / lane.weight
        return lane.jobs.popleft()

    def _forget_deadlines(self) -> None:
        """Let go of requests that left long before a far deadline; seldom enough to cost next to nothing."""
        if len(self._deadlines) <= 2 * self._length + _FAR_DEADLINES:
            return
        waiting = {id(job) for lane in self._lanes.values() for job in lane.jobs}
        self._deadlines = [entry for entry in self._deadlines if id(entry[2]) in waiting]
        heapq.heapify(self._deadlines)

    def _next_lane(self) -> _Lane | None:
        waiting = [lane for lane in self._lanes.values() if lane.jobs]
        if len(waiting) <= 1:
            return waiting[0] if waiting else None
        return min(self._first_class(waiting), key=lambda lane: lane.turn)

    def _first_class(self, waiting: Iterable[_Lane]) -> list[_Lane]:
        """The lanes of the priority whose oldest request counts most."""
        classes: dict[int, list[_Lane]] = {}
        for lane in waiting:
            classes.setdefault(lane.priority, []).append(lane)
        if len(classes) == 1:
            return next(iter(classes.values()))
        now = self._clock()

        def urgency(priority: int) -> tuple[float, int]:
            oldest = min(lane.jobs[0].admitted_at for lane in classes[priority])
            return priority + (now - oldest) / self._ageing, priority

        return classes[max(classes, key=urgency)]
