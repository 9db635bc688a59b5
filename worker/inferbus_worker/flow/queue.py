"""The bounded fair queue: the only place where a request ever waits.

Fair between projects: stride scheduling (Waldspurger and Weihl, 1995) within a priority, so that projects get turns in
proportion to their weights; between priorities the class goes first whose oldest request has the highest priority plus
age, so that nothing waits for ever. Room is fair as well: half of it is for whoever comes, the other half is kept for
the projects by weight, so that one project's flood cannot have all of it. Within a project it is fair between those who
ask: see `lane`.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from inferbus_worker.flow.job import Job
from inferbus_worker.flow.lane import Lane
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.state.protocols import Levels

# Deadlines of requests that wait no more, kept beyond as many again as wait, before they are swept out.
_FAR_DEADLINES = 64


class _Taker:
    """A thread that waits for work. A lock that starts out taken is the cheapest thing to sleep on."""

    __slots__ = ("_sleep",)

    def __init__(self) -> None:
        self._sleep = threading.Lock()
        self._sleep.acquire()

    def wait(self) -> None:
        """Sleep until somebody wakes this one, or has since it last slept."""
        self._sleep.acquire()

    def wake(self) -> None:
        self._sleep.release()


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
            name: Lane(project.weight, project.priority, int(size / 2 * project.weight / total))
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
        # The latest goes first, since its stack is still warm. One is woken at a time, and wakes the next when it has
        # found work and sees more: where turns are short it does all of them before another could begin, and to wake
        # one for every request cost a fifth of the worker's time.
        self._idle: list[_Taker] = []
        self._waking = False
        self._closed = False

    def __len__(self) -> int:
        return self._length

    @property
    def size(self) -> int:
        return self._size

    def levels(self) -> Levels:
        return {"queue": (self._length, self._size)}

    def position(self, project: str, owner: str | None = None) -> int | None:
        """The place that a request of this owner would get (0: next), or None where there is no room.

        It counts those who go before it in the order of turns, rather too many than too few. Takers only make room, and
        one thread alone puts: what this says holds until that thread's next `put`.
        """
        with self._lock:
            lane, now = self._lanes[project], self._clock()
            if not lane.has_room(owner, self._free(lane), now):
                return None
            place = lane.place(owner)
            return place + self._ahead(lane, place, now)

    def put(self, job: Job) -> None:
        """Append a request, after `position` said that there is room."""
        with self._lock:
            lane = self._lanes[job.key.project]
            if not lane:
                # A project that was away starts level with the others: idling earns no credit.
                lane.turn = max(lane.turn, self._turns[lane.priority])
            lane.put(job)
            self._length += 1
            if job.deadline is not None:
                heapq.heappush(self._deadlines, (job.deadline, next(self._counter), job))
                self._sweep_deadlines()
            taker = self._next_taker()
        if taker is not None:
            taker.wake()

    def take(self) -> Job | None:
        """The next request, waiting for one; None once the queue is closed and empty."""
        here: _Taker | None = None
        is_woken = False
        while True:
            with self._lock:
                self._waking = self._waking and not is_woken
                lane = self._next_lane()
                if lane is not None:
                    job = self._take_from(lane)
                    other = self._next_taker()
                    break
                if self._closed:
                    return None
                here = here or _Taker()
                self._idle.append(here)
            here.wait()  # until `put`, `close` or another taker wakes it
            is_woken = True
        if other is not None:
            other.wake()
        return job

    def remove(self, job: Job) -> bool:
        """Take a waiting request out (it was cancelled, or its deadline passed); False where it waits no more."""
        with self._lock:
            if not self._lanes[job.key.project].remove(job):
                return False
            self._length -= 1
            return True

    def expired(self) -> list[Job]:
        """The requests whose deadline has passed, perhaps also some that wait no more; each is named once."""
        now = self._clock()
        with self._lock:
            self._sweep_deadlines()
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
            taker.wake()

    def _next_taker(self) -> _Taker | None:
        """Whom to wake now: nobody while one that was woken has not looked yet, or while there is nothing to take."""
        if self._waking or not self._length or not self._idle:
            return None
        self._waking = True
        return self._idle.pop()

    def _take_from(self, lane: Lane) -> Job:
        self._length -= 1
        self._turns[lane.priority] = lane.turn
        lane.turn += 1 / lane.weight
        return lane.take()

    def _free(self, lane: Lane) -> int:
        """Places that this lane can still get: what is kept for it, and what nobody has of the shared half."""
        taken = sum(max(0, len(other) - other.reserved) for other in self._lanes.values())
        return max(0, lane.reserved - len(lane)) + max(0, self._shared - taken)

    def _ahead(self, lane: Lane, place: int, now: float) -> int:
        """How many requests of other lanes go before the one at `place` in its own."""
        turn = (lane.turn if lane else max(lane.turn, self._turns[lane.priority])) + place / lane.weight
        ahead = 0
        for other in self._lanes.values():
            if other is lane or not other:
                continue
            if other.priority != lane.priority:
                ahead += len(other) if self._urgency(other, now) > lane.priority else 0
            elif turn >= other.turn:
                ahead += min(len(other), math.floor((turn - other.turn) * other.weight) + 1)
        return ahead

    def _sweep_deadlines(self) -> None:
        """Let go of requests that left long before a far deadline; seldom enough to cost next to nothing."""
        if len(self._deadlines) <= 2 * self._length + _FAR_DEADLINES:
            return
        self._deadlines = [entry for entry in self._deadlines if entry[2] in self._lanes[entry[2].key.project]]
        heapq.heapify(self._deadlines)

    def _next_lane(self) -> Lane | None:
        waiting = [lane for lane in self._lanes.values() if lane]
        if len(waiting) <= 1:
            return waiting[0] if waiting else None
        return min(self._first_class(waiting), key=lambda lane: lane.turn)

    def _first_class(self, waiting: Iterable[Lane]) -> list[Lane]:
        """The lanes of the priority whose oldest request counts most."""
        classes: dict[int, list[Lane]] = {}
        for lane in waiting:
            classes.setdefault(lane.priority, []).append(lane)
        if len(classes) == 1:
            return next(iter(classes.values()))
        now = self._clock()

        def urgency(priority: int) -> tuple[float, int]:
            return max(self._urgency(lane, now) for lane in classes[priority]), priority

        return classes[max(classes, key=urgency)]

    def _urgency(self, lane: Lane, now: float) -> float:
        """Of the lane's oldest request: its priority, plus age."""
        return lane.priority + (now - lane.oldest.admitted_at) / self._ageing
