"""One project's requests for one model in the queue. Those who ask take turns, and none can have all of the room.

An owner is whoever asks: the topic's user, whom the broker vouches for, or whom a gateway names; else the `clientId`,
which is the requester's word; and those who name nobody are one owner together. Each has a turn for one request, then
the next one has it. An owner is known here only while a request of his waits, so that there are never more of them than
requests.

Room: an owner may hold a fixed multiple of what is still free (Choudhury and Hahne's dynamic thresholds, 1998). So one
alone gets most of the room and never all of it, many who want it all get the same, and whoever comes next finds some.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from inferbus_worker.flow.job import Job

#: An owner holds at most so many times what is free: one alone 7/8 of the room, two 7/15 each.
_GREED: Final = 7
#: Seconds for which the nameless leave some room to somebody with a name. Where nobody has one, it would be for nobody.
_REMEMBERED: Final = 600.0
#: So many that came back are looked at in one go: where nothing takes them yet they must not hold up the queue.
_LOOKS: Final = 16


class Lane:
    """Any thread may use it, under its queue's lock. Nothing here takes longer, however many wait.

    Attributes:
        model: which one these requests are for, by its key.
        weight: turns in proportion to other lanes' weights.
        priority: of the project.
        reserved: places that are kept for this lane.
        number: where several lanes have a turn at once, the lowest goes first.
        turn: its virtual time: it grows by 1/weight with every request taken.
    """

    def __init__(self, weight: float, priority: int, reserved: int, model: str = "", number: int = 0) -> None:
        self.model = model
        self.weight = weight
        self.priority = priority
        self.reserved = reserved
        self.number = number
        self.turn = 0.0
        # Ordered dictionaries throughout: their first entry is found, and any entry removed, in constant time.
        self._jobs: OrderedDict[Job, None] = OrderedDict()  # oldest first
        self._owners: OrderedDict[str | None, OrderedDict[Job, None]] = OrderedDict()  # next turn first
        self._returned: OrderedDict[Job, None] = OrderedDict()  # have had their turn, and go before all others
        self._named_until = 0.0

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    def __contains__(self, job: Job) -> bool:
        return job in self._jobs

    @property
    def fresh(self) -> int:
        """How many have not had a turn yet."""
        return len(self._jobs) - len(self._returned)

    @property
    def oldest(self) -> Job:
        """The request that has waited longest; there must be one."""
        return next(iter(self._jobs))

    def has_room(self, owner: str | None, free: int, now: float) -> bool:
        """Whether one more request of this owner may come in, where `free` places are left for the whole lane."""
        if owner is not None:
            self._named_until = now + _REMEMBERED
        elif now >= self._named_until:
            return free > 0
        return self._held(owner) < _GREED * free

    def place(self, owner: str | None) -> int:
        """How many of this lane's requests go before the owner's next one (at most; fewer where others hold few)."""
        own = self._held(owner)
        others = len(self._owners) - (own > 0)
        return own + min(len(self) - own, (own + 1) * others)

    def put(self, job: Job) -> None:
        self._jobs[job] = None
        self._owners.setdefault(job.owner, OrderedDict())[job] = None

    def give_back(self, job: Job) -> None:
        """Put a request that was taken at the head: it goes on as soon as something serves it."""
        self._jobs[job] = None
        self._jobs.move_to_end(job, last=False)
        self._returned[job] = None

    def take(self, accept: Callable[[Job], bool]) -> Job | None:
        """The first that is accepted: of those that came back, else the oldest of the owner whose turn it is."""
        if self._returned:
            for _ in range(min(len(self._returned), _LOOKS)):
                job = next(iter(self._returned))
                if accept(job):
                    del self._jobs[job], self._returned[job]
                    return job
                self._returned.move_to_end(job)  # so that others have their look the next time
            if not self._owners:
                return None
        owner, jobs = next(iter(self._owners.items()))
        job = next(iter(jobs))
        if not accept(job):
            return None
        del self._jobs[job], jobs[job]
        if jobs:
            self._owners.move_to_end(owner)
        else:
            del self._owners[owner]
        return job

    def remove(self, job: Job) -> bool:
        """Take out a request that waits; False where it does not."""
        if job not in self._jobs:
            return False
        del self._jobs[job]
        if job in self._returned:
            del self._returned[job]
            return True
        jobs = self._owners[job.owner]
        del jobs[job]
        if not jobs:
            del self._owners[job.owner]
        return True

    def _held(self, owner: str | None) -> int:
        return len(self._owners.get(owner, ()))
