"""One run: sessions that ask, and what came of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from inferbus_worker.flow.job import Job

from .fleet import Fleet
from .plan import Plan
from .timeline import Timeline


class Figures(NamedTuple):
    """What came of a run. Times are in seconds, shares from 0 to 1.

    Attributes:
        rate: answers a second.
        slots: share of the slots that were taken.
        store: share of the time in which the store worked.
        refused: share of the requests that found no room.
        wait_p50: from the broker to a slot.
        wait_p99: the same.
        wait_mean: the same.
        store_p99: what a call waited for the store's turn.
        response_mean: from the broker to the end of the answer.
    """

    rate: float
    slots: float
    store: float
    refused: float
    wait_p50: float
    wait_p99: float
    wait_mean: float
    store_p99: float
    response_mean: float


def simulate(plan: Plan) -> Figures:
    """Let it happen."""
    return _Run(plan).figures()


class _Run:
    """Sessions are counted, not followed: whoever thinks asks next with the same chance as all others that think."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._random = random.Random(plan.seed)  # noqa: S311 - the same run each time
        self._timeline = Timeline()
        self._fleet = Fleet(
            plan,
            self._timeline,
            self._seconds,
            refused=self._was_refused,
            taken=self._was_taken,
            answered=self._was_answered,
        )
        self._asking: set[int] = set()
        self._arrivals = 0  # who thinks is another number after each of them: an older arrival does not hold
        self._refusals = self._done = 0
        self._began = self._slot_seconds = 0.0
        self._waits: list[float] = []
        self._responses: list[float] = []

    def figures(self) -> Figures:
        if self._plan.think:
            self._next_arrival()
        else:
            for session in range(self._plan.sessions):
                self._ask(session)
        while self._done < self._plan.warm_up:
            self._timeline.step()
        self._forget()
        while self._done < self._plan.requests:
            self._timeline.step()
        passed = self._timeline.now - self._began
        answered = len(self._responses)
        return Figures(
            rate=answered / passed,
            slots=self._slot_seconds / passed / (self._plan.workers * self._plan.slots),
            store=self._fleet.store.busy / passed,
            refused=self._refusals / self._done,
            wait_p50=quantile(self._waits, 0.5),
            wait_p99=quantile(self._waits, 0.99),
            wait_mean=_mean(self._waits),
            store_p99=quantile(self._fleet.store.waits, 0.99),
            response_mean=_mean(self._responses),
        )

    def _forget(self) -> None:
        """What was before was the beginning, which is not how it goes on."""
        self._began, self._slot_seconds = self._timeline.now, 0.0
        self._refusals = self._done = 0
        self._waits.clear()
        self._responses.clear()
        self._fleet.store.forget()

    def _next_arrival(self) -> None:
        thinking = self._plan.sessions - len(self._asking)
        self._arrivals += 1
        if thinking:
            mine = self._arrivals
            wait = self._random.expovariate(thinking / self._plan.think)
            self._timeline.after(wait, lambda: self._arrive(mine))

    def _arrive(self, arrival: int) -> None:
        if arrival == self._arrivals:
            session = self._random.randrange(self._plan.sessions)
            while session in self._asking:
                session = self._random.randrange(self._plan.sessions)
            self._ask(session)
            self._next_arrival()

    def _ask(self, session: int) -> None:
        self._asking.add(session)
        self._fleet.deal(session)

    def _seconds(self) -> float:
        average = self._plan.answer
        seconds = average if self._plan.is_steady else self._random.expovariate(1 / average)
        self._slot_seconds += seconds
        return seconds

    def _was_refused(self, job: Job) -> None:
        self._refusals += 1
        self._leave(job)

    def _was_taken(self, job: Job) -> None:
        self._waits.append(self._timeline.now - job.admitted_at)

    def _was_answered(self, job: Job) -> None:
        self._responses.append(self._timeline.now - job.admitted_at)
        self._leave(job)

    def _leave(self, job: Job) -> None:
        self._done += 1
        session = int(job.key.session)
        self._asking.remove(session)
        if self._plan.think:
            self._next_arrival()
        else:
            self._ask(session)


def quantile(values: Sequence[float], share: float) -> float:
    """The least that so many are not above; 0 where there are none."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
