"""Workers of one group: who is dealt a request admits it, who has a free slot takes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from inferbus_client.contract.wire import Request
from inferbus_worker.flow.job import Job
from inferbus_worker.flow.queue import RequestQueue
from inferbus_worker.replies.address import ReplyAddress
from inferbus_worker.replies.stream import Backlog, ReplyStream
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.memory.sessions import MemorySessions

from .plan import BATCH, Plan
from .timeline import Server, Timeline

_PROJECT: Final = "general"
_BEAT: Final = 0.5
_REAP: Final = 1.0
#: A lease is renewed so often before it ends.
_RENEWALS: Final = 4

#: What becomes of a job: it is refused, taken, or answered.
Watch = Callable[[Job], None]


class Worker:
    """One worker's slots, and what it has been dealt and has not sent to the store yet."""

    def __init__(self, slots: int) -> None:
        self.slots = self.free = slots
        self.intake: deque[Job] = deque()
        self.is_sending = self.is_taking = self.listens = False


class _SlotsOf:
    """`Places`: those of the worker that asks."""

    def __init__(self) -> None:
        self.worker = Worker(0)

    def has_free(self, model: str) -> bool:  # noqa: ARG002 - there is but one
        return self.worker.free > 0

    def free(self, model: str) -> int:  # noqa: ARG002
        return self.worker.free

    def acquire(self, job: Job) -> bool:  # noqa: ARG002
        self.worker.free -= 1
        return True


class Fleet:
    """Everything from the broker to the answer.

    Args:
        plan: what there is.
        timeline: when things happen.
        seconds: how long the next answer takes.
        refused: a job found no room.
        taken: a job has a slot.
        answered: a job's outcome is written.
    """

    def __init__(
        self,
        plan: Plan,
        timeline: Timeline,
        seconds: Callable[[], float],
        *,
        refused: Watch,
        taken: Watch,
        answered: Watch,
    ) -> None:
        self._plan = plan
        self._timeline = timeline
        self._seconds = seconds
        self._refused, self._taken, self._answered = refused, taken, answered
        self.store = Server(timeline)
        self._places = _SlotsOf()
        projects = {_PROJECT: ProjectSettings()}
        self.queue = RequestQueue(plan.queue_size, projects, places=self._places, clock=timeline)
        self.workers = [Worker(plan.slots) for _ in range(plan.workers)]
        #: Those that have a free slot and wait for the bell; who has waited longest is rung first.
        self._listening: deque[Worker] = deque()
        self._dealt = 0
        # Of each request these hold the same; nothing of the queue's asks for them.
        first = SessionKey(_PROJECT, "all")
        claim = MemorySessions(1, 1.0).claim(first)
        assert claim is not None  # noqa: S101 - it is the first
        self._claim = claim
        self._replies = ReplyStream(ReplyAddress("topic", "request", first.session), lambda _: None, Backlog())
        self._request = Request(message="a question")
        for number, worker in enumerate(self.workers):
            self._listen(worker)
            share = number / plan.workers  # they did not all start at once
            for period, cost in self._chores(worker):
                timeline.after(share * period, partial(self._again, period, cost))

    def deal(self, session: int) -> None:
        """The broker has a request of this session: in strict rotation, blind to load."""
        worker = self.workers[self._dealt % len(self.workers)]
        self._dealt += 1
        owner = str(session)
        job = Job(
            request=self._request,
            key=SessionKey(_PROJECT, owner, owner),
            claim=self._claim,
            replies=self._replies,
            admitted_at=self._timeline.now,
            deadline=None,
            clock=self._timeline,
        )
        worker.intake.append(job)
        if not worker.is_sending:
            self._admit(worker)

    def _admit(self, worker: Worker) -> None:
        """All that has arrived goes in one round trip."""
        worker.is_sending = True
        batch = [worker.intake.popleft() for _ in range(min(len(worker.intake), BATCH))]
        costs = self._plan.costs
        self._call(costs.call + len(batch) * costs.admit, partial(self._decided, worker, batch))

    def _decided(self, worker: Worker, batch: list[Job]) -> None:
        accepted = 0
        for job in batch:
            if self.queue.position(_PROJECT, job.owner) is None:
                self._refused(job)
            else:
                self.queue.put(job)
                accepted += 1
        if accepted:
            costs = self._plan.costs
            self._call(costs.call + accepted * costs.confirm, self._ring)
        worker.is_sending = False
        if worker.intake:
            self._admit(worker)

    def _ring(self) -> None:
        """One is woken at a time, and wakes the next when it leaves something behind."""
        if self._listening and len(self.queue):
            worker = self._listening.popleft()
            worker.listens = False
            self._take(worker)

    def _take(self, worker: Worker) -> None:
        if worker.is_taking:
            return
        worker.is_taking = True
        if worker.listens:
            self._listening.remove(worker)
            worker.listens = False
        costs = self._plan.costs
        self._call(costs.call + min(worker.free, len(self.queue)) * costs.take, partial(self._took, worker))

    def _took(self, worker: Worker) -> None:
        worker.is_taking = False
        self._places.worker = worker
        while worker.free and len(self.queue):
            job = self.queue.take(0)
            if job is None:
                break
            self._taken(job)
            self._timeline.after(self._seconds(), partial(self._end, worker, job))
        if worker.free:
            self._listen(worker)
        self._ring()

    def _end(self, worker: Worker, job: Job) -> None:
        costs = self._plan.costs
        self._call(costs.call + costs.commit, partial(self._written, worker, job))

    def _written(self, worker: Worker, job: Job) -> None:
        self._answered(job)
        self._call(self._plan.costs.call + self._plan.costs.settle)
        worker.free += 1
        self._take(worker)

    def _listen(self, worker: Worker) -> None:
        if not worker.listens:
            worker.listens = True
            self._listening.append(worker)

    def _call(self, cost: float, then: Callable[[], None] | None = None) -> None:
        """A round trip of a worker's: what the network takes of it comes first here, all of it."""
        self._timeline.after(self._plan.trip, partial(self.store.ask, cost, then))

    def _chores(self, worker: Worker) -> list[tuple[float, Callable[[], float]]]:
        """What a worker does besides, with how often; the costs are asked for each time."""
        costs = self._plan.costs
        return [
            (_BEAT, lambda: costs.call + costs.beat),
            (_REAP, lambda: costs.call + costs.reap),
            (self._plan.lease / _RENEWALS, lambda: costs.call + (worker.slots - worker.free) * costs.renew),
        ]

    def _again(self, period: float, cost: Callable[[], float]) -> None:
        self.store.ask(cost())
        self._timeline.after(period, partial(self._again, period, cost))
