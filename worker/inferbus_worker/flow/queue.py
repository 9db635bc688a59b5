"""The bounded fair queue: the only place where a request ever waits.

Every project has a lane for each of its models. A request is taken only together with a place that serves its model
(see `Places`), so a model whose places are all busy holds up its own lanes and no other: nobody wakes for them.

Fair between projects: stride scheduling (Waldspurger and Weihl, 1995) within a model and a priority, so that projects
get turns in proportion to their weights; models that have places free take turns. Between priorities the class goes
first whose oldest request has the highest priority plus age, so that nothing waits for ever. Room is fair as well: half
of it is for whoever comes, the other half is kept for the lanes by weight, so that no flood of one project, or for one
slow model, can have all of it. Within a lane it is fair between those who ask: see `lane`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from typing import Final

from inferbus_worker.flow.job import Job
from inferbus_worker.flow.lane import Lane
from inferbus_worker.flow.looks import Looks
from inferbus_worker.flow.places import Everywhere, Places
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.state.protocols import Levels

#: Whose turn it is, and where two have it, whose project was named first.
_turn: Final = attrgetter("turn", "number")


class _Taker:
    """A thread that waits for work. A lock that starts out taken is the cheapest thing to sleep on."""

    __slots__ = ("_sleep",)

    def __init__(self) -> None:
        self._sleep = threading.Lock()
        self._sleep.acquire()

    def wait(self, timeout: float = -1) -> bool:
        """Sleep until somebody wakes this one, or has since it last slept; False after `timeout` seconds."""
        return self._sleep.acquire(timeout=timeout)

    def wake(self) -> None:
        self._sleep.release()


class RequestQueue:
    """Bounded, fair, and closable. One thread asks for room and puts; any number take.

    Args:
        size: how many requests may wait.
        projects: whose.
        models: the models of each project, by their keys; where nothing is said each has one, without a name.
        places: what a request is taken with.
        ageing: seconds of waiting that make up for one step of priority.
        clock: a monotonic one.

    Attributes:
        when_short: called when there is a place for a request and nobody to take it; under the queue's lock.
    """

    def __init__(
        self,
        size: int,
        projects: Mapping[str, ProjectSettings],
        *,
        models: Mapping[str, Sequence[str]] | None = None,
        places: Places | None = None,
        ageing: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        total = sum(project.weight for project in projects.values())
        models = models or {name: [""] for name in projects}
        # However little a lane weighs, one place is kept for it, but in the smallest queues.
        least = 1 if 2 * sum(map(len, models.values())) <= size else 0
        self._lanes: dict[tuple[str, str], Lane] = {}
        for name, project in projects.items():
            kept = max(int(size / 2 * project.weight / total / len(models[name])), least)
            for model in models[name]:
                self._lanes[name, model] = Lane(project.weight, project.priority, kept, model, len(self._lanes))
        self._shared = size - sum(lane.reserved for lane in self._lanes.values())
        self._size = size
        self._places: Places = places or Everywhere()
        self._ageing = max(ageing, 0.001)
        self._clock = clock
        self._length = self._taken = 0
        # The virtual time of each model and priority: other lanes never compete, so they share none.
        self._turns = dict.fromkeys(((lane.model, lane.priority) for lane in self._lanes.values()), 0.0)
        # The lanes of each in which something waits: of the others, however many, nobody asks at every request.
        self._waiting: dict[tuple[str, int], dict[Lane, None]] = {each: {} for each in self._turns}
        # How many wait beyond what is kept for their lanes.
        self._beyond = 0
        # How many had been taken when each model last had a turn: who has gone longest without goes next.
        self._last_turn = dict.fromkeys((lane.model for lane in self._lanes.values()), 0)
        self._looks = Looks(lambda job: job in self._lane_of(job))
        self._lock = threading.Lock()
        # The latest goes first, since its stack is still warm. One is woken at a time, and wakes the next when it has
        # found work and sees more: where turns are short it does all of them before another could begin, and to wake
        # one for every request cost a fifth of the worker's time.
        self._idle: list[_Taker] = []
        self._waking = False
        self._closed = False
        self.when_short: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return self._length

    @property
    def size(self) -> int:
        return self._size

    def levels(self) -> Levels:
        return {"queue": (self._length, self._size)}

    def position(self, project: str, owner: str | None = None, model: str = "") -> int | None:
        """The place that a request of this owner would get (0: next), or None where there is no room.

        It counts those who go before it in the order of turns, rather too many than too few. Takers only make room, and
        one thread alone puts: what this says holds until that thread's next `put`.
        """
        with self._lock:
            lane, now = self._lanes[project, model], self._clock()
            if not lane.has_room(owner, self._free(lane), now):
                return None
            if not self._length:
                return 0
            place = lane.place(owner)
            return place + self._ahead(lane, place, now)

    def put(self, job: Job) -> None:
        """Append a request, after `position` said that there is room, or one that has been in another model's lane."""
        with self._lock:
            lane = self._lane_of(job)
            if not lane:
                # A project that was away starts level with the others: idling earns no credit.
                lane.turn = max(lane.turn, self._turns[lane.model, lane.priority])
            lane.put(job)
            taker = self._came(job, lane)
        if taker is not None:
            taker.wake()

    def give_back(self, job: Job) -> None:
        """Put a request that was taken at the head of its lane, for another try.

        It takes nobody's room: its place was given away when it was taken, and it is one of few.
        """
        with self._lock:
            lane = self._lane_of(job)
            lane.give_back(job)
            taker = self._came(job, lane)
        if taker is not None:
            taker.wake()

    def take(self, patience: float | None = None) -> Job | None:
        """The next request, waiting for one.

        Args:
            patience: seconds to wait; None: any time.

        Returns:
            None once the queue is closed and nothing can be taken, or when the patience is at its end.
        """
        here: _Taker | None = None
        is_woken = False
        while True:
            with self._lock:
                self._waking = self._waking and not is_woken
                job = self._take_next()
                if job is not None:
                    other = self._next_taker()
                    if not self._idle and self._length and self._can_take():
                        self.when_short()
                    break
                if self._closed:
                    return None
                here = here or _Taker()
                self._idle.append(here)
            # until `put`, `look`, `close` or another taker wakes it
            is_woken = here.wait(-1 if patience is None else patience) or not self._leaves(here)
            if not is_woken:
                return None
        if other is not None:
            other.wake()
        return job

    def look(self) -> None:
        """Wake who can take something, after places have become free in another way than by their takers."""
        if not self._length:
            return
        with self._lock:
            taker = self._next_taker()
            if taker is None and not self._idle and self._can_take():
                self.when_short()
        if taker is not None:
            taker.wake()

    def could_start(self) -> int:
        """How many of those that wait new takers could take now, at most: as many as their models have places free."""
        waiting: Counter[str] = Counter()
        with self._lock:
            for lane in self._lanes.values():
                waiting[lane.model] += len(lane)
            return sum(min(count, self._places.free(model)) for model, count in waiting.items() if count)

    def queued(self, model: str) -> int:
        """How many requests wait for a model."""
        with self._lock:
            return sum(len(lane) for lane in self._lanes.values() if lane.model == model)

    def fresh(self, model: str) -> int:
        """How many of them have not had a turn yet: those that have may rest before their next try."""
        with self._lock:
            return sum(lane.fresh for lane in self._lanes.values() if lane.model == model)

    def queued_by_project(self, most: int) -> dict[str, int]:
        """How many requests wait in each project, the longest first, `most` of them; none where nothing waits."""
        if not self._length:
            return {}
        waiting: Counter[str] = Counter()
        with self._lock:
            for (project, _), lane in self._lanes.items():
                waiting[project] += len(lane)
        return dict((+waiting).most_common(most))

    def waiting_for(self, model: str) -> list[Job]:
        """The requests that wait for a model."""
        if not self._length:
            return []
        with self._lock:
            return [job for lane in self._lanes.values() if lane.model == model for job in lane]

    def remove(self, job: Job) -> bool:
        """Take a waiting request out (it was cancelled, or its deadline passed); False where it waits no more."""
        with self._lock:
            lane = self._lane_of(job)
            if not lane.remove(job):
                return False
            self._went(lane)
            return True

    def due(self) -> list[Job]:
        """The requests whose `Job.look_at` has passed, perhaps also some that wait no more; each is named once."""
        now = self._clock()
        with self._lock:
            return self._looks.due(now, self._length)

    def look_again(self, job: Job) -> None:
        """Let `due` name a request that waits once more, at its new `Job.look_at`."""
        if job.look_at is not None:
            with self._lock:
                self._looks.add(job, job.look_at, self._length)

    def close(self) -> None:
        """Let the takers end, after the requests that were put before."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for taker in idle:
            taker.wake()

    def _lane_of(self, job: Job) -> Lane:
        return self._lanes[job.key.project, job.model]

    def _came(self, job: Job, lane: Lane) -> _Taker | None:
        """Count a request that waits from now on; whom to wake."""
        self._length += 1
        self._beyond += len(lane) > lane.reserved
        self._waiting[lane.model, lane.priority][lane] = None
        if job.look_at is not None:
            self._looks.add(job, job.look_at, self._length)
        if self._waking or not self._places.has_free(lane.model):
            return None
        if not self._idle:
            self.when_short()
            return None
        self._waking = True
        return self._idle.pop()

    def _went(self, lane: Lane) -> None:
        """Count a request that waits in this lane no more."""
        self._length -= 1
        self._beyond -= len(lane) >= lane.reserved
        if not lane:
            del self._waiting[lane.model, lane.priority][lane]

    def _leaves(self, taker: _Taker) -> bool:
        """Whether a taker whose patience is at its end may go; not one that somebody has just chosen to wake."""
        with self._lock:
            if taker in self._idle:
                self._idle.remove(taker)
                return True
        taker.wait()
        return False

    def _next_taker(self) -> _Taker | None:
        """Whom to wake now: nobody while one that was woken has not looked yet, or while there is nothing to take."""
        if self._waking or not self._length or not self._idle or not self._can_take():
            return None
        self._waking = True
        return self._idle.pop()

    def _can_take(self) -> bool:
        has_free = self._places.has_free
        return any(lanes and has_free(model) for (model, _), lanes in self._waiting.items())

    def _take_next(self) -> Job | None:
        if not self._length:
            return None
        has_free = self._places.has_free
        waiting: dict[tuple[str, int], Collection[Lane]] = {
            each: lanes for each, lanes in self._waiting.items() if lanes and has_free(each[0])
        }
        while waiting:
            each = next(iter(waiting)) if len(waiting) == 1 else self._first(waiting)
            lane = min(waiting[each], key=_turn)
            job = lane.take(self._places.acquire)
            if job is not None:
                self._went(lane)
                self._taken += 1
                self._last_turn[lane.model] = self._taken
                self._turns[each] = lane.turn
                lane.turn += 1 / lane.weight
                return job
            waiting[each] = [other for other in waiting[each] if other is not lane]
            if not waiting[each]:
                del waiting[each]
        return None

    def _first(self, waiting: Mapping[tuple[str, int], Collection[Lane]]) -> tuple[str, int]:
        """The model and priority that go first: the priority whose oldest request counts most, its models in turns."""
        of_first = set(waiting)
        if len({priority for _, priority in waiting}) > 1:
            now = self._clock()
            _, first = max((max(self._urgency(lane, now) for lane in waiting[each]), each[1]) for each in waiting)
            of_first = {each for each in waiting if each[1] == first}
        # Of models that have gone without for as long, which is before their first turn, the one whose lane is first.
        return min(of_first, key=lambda each: (self._last_turn[each[0]], min(map(_turn, waiting[each]))))

    def _free(self, lane: Lane) -> int:
        """Places that this lane can still get: what is kept for it, and what nobody has of the shared half."""
        if not self._length:
            return lane.reserved + self._shared
        free = max(0, lane.reserved - len(lane)) + max(0, self._shared - self._beyond)
        # Those that came back, or from another model's lane, asked for no room.
        return min(free, max(0, self._size - self._length))

    def _ahead(self, lane: Lane, place: int, now: float) -> int:
        """How many requests of other lanes go before the one at `place` in its own."""
        latest = self._turns[lane.model, lane.priority]
        turn = (lane.turn if lane else max(lane.turn, latest)) + place / lane.weight
        ahead = 0
        for (model, priority), lanes in self._waiting.items():
            if model != lane.model:
                continue
            if priority != lane.priority:
                ahead += sum(len(other) for other in lanes if self._urgency(other, now) > lane.priority)
                continue
            for other in lanes:
                if turn >= other.turn and other is not lane:
                    ahead += min(len(other), int((turn - other.turn) * other.weight) + 1)
        return ahead

    def _urgency(self, lane: Lane, now: float) -> float:
        """Of the lane's oldest request: its priority, plus age."""
        return lane.priority + (now - lane.oldest.admitted_at) / self._ageing
