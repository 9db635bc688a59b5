"""What this worker has taken from the store and not yet given back: jobs that wait for a slot's thread, run, or end.

Each is held by a token, which no other taking has. The store compares it whenever something is to be written, so that a
worker which was away too long writes nothing; what it has lost it hears of when it renews its leases, and stops.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from inferbus_client.contract.wire import Failure
from inferbus_worker.flow.job import Job
from inferbus_worker.replies.address import Owed
from inferbus_worker.state.conversation import Change, Conversation
from inferbus_worker.state.redis.group import Taken

#: What a job ends with that another worker has: nobody hears of it.
_LOST = Failure("engine_unavailable")


class GroupClaim:
    """The claim of a job that was taken. What its turn changes is written together with its outcome: see `Claim`."""

    __slots__ = ("change", "conversation", "may_repeat", "session", "taken", "version")

    def __init__(self, taken: Taken, conversation: Conversation) -> None:
        self.taken = taken
        self.session = taken.session
        self.version = taken.version
        self.conversation = conversation
        #: What is to be written.
        self.change: Change | None = None
        #: Whether somebody may ask for the outcome again.
        self.may_repeat = True

    @property
    def fence(self) -> int:
        """The version that the session had; tokens are what the store compares."""
        return self.version

    @property
    def owed(self) -> Owed:
        return Owed(self.taken.job, self.taken.token)

    def commit(self, change: Change) -> bool:
        """Note it: the end of the job writes it, or finds that it comes too late."""
        self.change = change
        return True

    def release(self) -> None:
        """The end of the job does."""


class Over(NamedTuple):
    """What the store may forget: a job, by its token, and whether the history has what its turn has changed."""

    job: str
    token: str
    is_written: bool


class _Held(NamedTuple):
    """A job, by what token; without one its terminal reply alone is owed, which another worker has written.

    Attributes:
        has_ended: its outcome is written.
        has_left: its terminal reply has left.
        is_writing: its turn's change is on its way to the history.
        is_written: it is there.
        until: nobody else can have it before that time.
    """

    token: str
    job: Job | None
    until: float
    has_ended: bool = False
    has_left: bool = False
    is_writing: bool = False
    is_written: bool = False


class Holdings:
    """Any thread may use it.

    Args:
        lease: seconds for which what was taken is ours.
        clock: a monotonic one.
    """

    def __init__(self, lease: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease = lease
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._lost: set[Job] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def add(self, taken: Taken, job: Job | None, since: float = -math.inf) -> None:
        """Note a job.

        Args:
            taken: as the store gave it.
            job: what is to be run, or ends; None: its terminal reply alone is owed.
            since: when the store was asked for it; what is only to be ended is ours for as long as nobody asks.
        """
        until = since + self._lease
        with self._lock:
            self._held[taken.job] = _Held(taken.token, job, until, has_ended=job is None)

    def renewed(self, names: Iterable[str], at: float) -> None:
        """These are ours for one more lease, which began at that time or later."""
        with self._lock:
            for name in names:
                held = self._held.get(name)
                if held is not None:
                    self._held[name] = held._replace(until=max(held.until, at + self._lease))

    def keep(self, name: str) -> bool:
        """The store has forgotten a job: whether nobody else can have had it, and so it is ours for ever."""
        with self._lock:
            held = self._held.get(name)
            if held is None or self._clock() >= held.until:
                return False
            self._held[name] = held._replace(until=math.inf)
            return True

    def all(self) -> list[Owed]:
        """All that is held."""
        with self._lock:
            return [Owed(name, held.token) for name, held in self._held.items()]

    def unended(self) -> list[Owed]:
        """Of that, what has no outcome yet."""
        with self._lock:
            return [Owed(name, held.token) for name, held in self._held.items() if not held.has_ended]

    def job(self, name: str) -> Job | None:
        """One that has not ended."""
        with self._lock:
            held = self._held.get(name)
        return None if held is None or held.has_ended else held.job

    def ended(self, name: str, *, is_writing: bool) -> None:
        """A job's outcome is written; its reply has yet to leave, and its history perhaps to follow."""
        with self._lock:
            held = self._held.get(name)
            if held is not None:
                self._held[name] = held._replace(has_ended=True, is_writing=is_writing)

    def left(self, owed: Owed) -> Over | None:
        """Its reply has left; what the store may forget now."""
        return self._after(owed, lambda held: held._replace(has_left=True))

    def written(self, owed: Owed) -> Over | None:
        """Its history has followed; what the store may forget now."""
        return self._after(owed, lambda held: held._replace(is_written=True))

    def forget(self, owed: Owed) -> None:
        """Another worker has it, and its job is at its end here."""
        with self._lock:
            self._held.pop(owed.job, None)

    def _after(self, owed: Owed, step: Callable[[_Held], _Held]) -> Over | None:
        with self._lock:
            held = self._held.get(owed.job)
            if held is None or held.token != owed.token:
                return None
            held = self._held[owed.job] = step(held)
            if not held.has_left or held.is_writing != held.is_written:
                return None
            del self._held[owed.job]
        return Over(*owed, held.is_written)

    def lose(self, name: str) -> bool:
        """Another worker has it, or will: let it stop, and say nothing more of it. False where it is over already."""
        with self._lock:
            held = self._held.pop(name, None)
            if held is None:
                return False
            if held.job is not None and not held.has_ended:
                self._lost.add(held.job)
        if held.job is not None:
            if held.has_ended:
                held.job.replies.abandon()
            else:
                held.job.mark(_LOST)
        return True

    def was_lost(self, job: Job) -> bool:
        """Whether another worker has it; asked once, at its end."""
        with self._lock:
            is_lost = job in self._lost
            self._lost.discard(job)
        return is_lost
