"""Lanes per project and model: a model whose places are taken holds up nobody but those who wait for it."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferbus_client.contract.wire import Request
from inferbus_worker.flow.job import Job
from inferbus_worker.flow.queue import RequestQueue
from inferbus_worker.replies.address import ReplyAddress
from inferbus_worker.replies.stream import Backlog, ReplyStream
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.stateless import NO_CLAIM
from support.rooms import FakeClock
from support.waiting import until

_NUMBERS = itertools.count()


class Some:
    """Places, so many per model; a job that is said to be picky is refused even where there is one."""

    def __init__(self, **free: int) -> None:
        self.left = Counter(free)
        self.picky: set[Job] = set()
        self.asked = 0
        self._lock = threading.Lock()

    def has_free(self, model: str) -> bool:
        return self.left[model] > 0

    def free(self, model: str) -> int:
        return self.left[model]

    def acquire(self, job: Job) -> bool:
        self.asked += 1
        with self._lock:
            if self.left[job.model] <= 0 or job in self.picky:
                return False
            self.left[job.model] -= 1
        return True

    def give_back(self, model: str) -> None:
        with self._lock:
            self.left[model] += 1


def job_for(model: str, clock: FakeClock, project: str = "p", owner: str | None = None) -> Job:
    number = next(_NUMBERS)
    return Job(
        request=Request(message="hello", client_id=owner),
        key=SessionKey(project, f"s{number}", None),
        claim=NO_CLAIM,
        replies=ReplyStream(ReplyAddress("t", "r", f"s{number}"), lambda _: None, Backlog()),
        admitted_at=clock(),
        deadline=None,
        clock=clock,
        model=model,
    )


class Lines:
    """A queue of several models, places for their requests, and a clock that stands still."""

    def __init__(
        self, places: Some, size: int = 100, models: Sequence[str] = ("fast", "slow"), projects: Sequence[str] = ("p",)
    ) -> None:
        self.clock, self.places = FakeClock(), places
        self.queue = RequestQueue(
            size,
            {name: ProjectSettings() for name in projects},
            models=dict.fromkeys(projects, models),
            places=places,
            clock=self.clock,
        )

    def put(self, model: str, count: int = 1, project: str = "p", owner: str | None = None) -> list[Job]:
        jobs = [job_for(model, self.clock, project, owner) for _ in range(count)]
        for job in jobs:
            self.queue.put(job)
        return jobs

    def fill(self, model: str, project: str = "p") -> int:
        """Put until there is no room; how many went in."""
        count = 0
        while self.queue.position(project, None, model) is not None:
            self.put(model, project=project)
            count += 1
        return count

    def take(self) -> Job | None:
        return self.queue.take(0)


class TestNobodyWaitsForAnothersModel:
    def test_a_request_of_the_fast_one_is_taken_past_all_of_the_slow_one_s(self) -> None:
        lines = Lines(Some(fast=1))
        lines.put("slow", 20)
        (fast,) = lines.put("fast")
        assert lines.take() is fast
        assert lines.take() is None

    @pytest.mark.parametrize("size", [8, 10, 100])
    def test_the_queue_full_of_slow_work_keeps_room_for_the_fast_one(self, size: int) -> None:
        lines = Lines(Some(fast=1), size, projects=("p", "q"))
        filled = lines.fill("slow", "p") + lines.fill("slow", "q")
        assert filled < size
        assert lines.queue.position("p", None, "fast") == 0
        assert lines.queue.position("q", None, "fast") == 0
        assert filled + lines.fill("fast", "p") + lines.fill("fast", "q") == size == len(lines.queue)

    def test_however_little_a_project_weighs_room_is_kept_for_each_of_its_models(self) -> None:
        """Its share was rounded down to nothing."""
        clock = FakeClock()
        projects = {"light": ProjectSettings(weight=0.01), "heavy": ProjectSettings(weight=100)}
        models = dict.fromkeys(projects, ("fast", "slow"))
        queue = RequestQueue(20, projects, models=models, places=Some(), clock=clock)
        while queue.position("heavy", None, "slow") is not None:
            queue.put(job_for("slow", clock, "heavy"))
        assert queue.position("light", None, "fast") == 0

    def test_the_place_is_that_in_the_line_of_its_own_model(self) -> None:
        lines = Lines(Some())
        lines.put("slow", 20)
        assert lines.queue.position("p", None, "fast") == 0
        assert lines.queue.position("p", None, "slow") == 20

    def test_models_take_turns_where_both_have_places(self) -> None:
        """One that came late once had all turns, until it had had as many as the other since the start."""
        lines = Lines(Some(fast=1000, slow=1000))
        lines.put("slow", 60)
        for _ in range(50):
            lines.take()
        lines.put("slow", 20)
        lines.put("fast", 30)
        taken = Counter(job.model for _ in range(20) if (job := lines.take()) is not None)
        assert taken == {"fast": 10, "slow": 10}

    def test_priority_goes_before_turns_of_models(self) -> None:
        lines = Lines(Some(fast=10, slow=10))
        lines.queue = RequestQueue(
            100,
            {"p": ProjectSettings(), "urgent": ProjectSettings(priority=5)},
            models={"p": ["fast", "slow"], "urgent": ["slow"]},
            places=lines.places,
            clock=lines.clock,
        )
        lines.put("fast", 3)
        urgent = lines.put("slow", 3, project="urgent")
        assert [lines.take() for _ in range(3)] == urgent


class TestReturned:
    def test_who_came_back_goes_first(self) -> None:
        lines = Lines(Some(fast=10))
        first, *_ = lines.put("fast", 3)
        assert lines.take() is first
        lines.queue.give_back(first)
        assert lines.take() is first

    def test_who_cannot_go_yet_holds_up_nobody(self) -> None:
        lines = Lines(Some(fast=10))
        first, second = lines.put("fast", 2)
        lines.take()
        lines.queue.give_back(first)
        lines.places.picky.add(first)
        assert lines.take() is second
        assert lines.take() is None
        lines.places.picky.clear()
        assert lines.take() is first

    def test_many_who_cannot_go_cost_no_more_than_a_few(self) -> None:
        """Each look asked for each of them, under the queue's lock: 5,000 took 10 ms of every request's time."""
        lines = Lines(Some(fast=10_000), size=10_000)
        jobs = lines.put("fast", 500)
        for _ in jobs:
            lines.take()
        for job in jobs:
            lines.queue.give_back(job)
        lines.places.picky.update(jobs)
        lines.places.asked = 0
        for _ in range(10):
            assert lines.take() is None
        assert lines.places.asked <= 10 * 20

    def test_among_many_who_cannot_go_the_one_who_can_is_found(self) -> None:
        lines = Lines(Some(fast=10_000), size=10_000)
        jobs = lines.put("fast", 300)
        for _ in jobs:
            lines.take()
        for job in jobs:
            lines.queue.give_back(job)
        lines.places.picky.update(jobs[:-1])
        taken = [lines.take() for _ in range(50)]
        assert [job for job in taken if job is not None] == [jobs[-1]]

    def test_what_came_back_is_looked_at_once_and_keeps_no_old_looks(self) -> None:
        """Each return once left one more entry, and when there were more than were swept, every put swept them all."""
        lines = Lines(Some(fast=10_000), size=10_000)
        jobs = lines.put("fast", 200)
        for job in jobs:
            job.look_at = lines.clock() + 60
        for _ in range(20):
            for _ in jobs:
                assert lines.take() is not None
            for job in jobs:
                lines.queue.give_back(job)
        assert len(lines.queue._looks) <= 2 * len(jobs) + 64
        lines.clock.pass_(61)
        due = lines.queue.due()
        assert len(due) == len(set(due)) == len(jobs)

    def test_returned_ones_do_not_let_the_queue_outgrow_its_size(self) -> None:
        lines = Lines(Some(fast=1000, slow=0), size=40)
        lines.fill("slow")
        lines.fill("fast")
        taken = [lines.take() for _ in range(5)]
        while (room := lines.queue.position("p", None, "fast")) is not None and room < 100:
            lines.put("fast")
        for job in taken:
            assert job is not None
            lines.queue.give_back(job)
        assert len(lines.queue) == 45
        assert lines.queue.position("p", None, "fast") is None
        assert lines.queue.position("p", None, "slow") is None


class TestGrowth:
    def test_no_more_could_start_than_there_are_places(self) -> None:
        """A thousand that wait for one place once called for as many threads as there may be."""
        lines = Lines(Some(fast=2, slow=3), size=1000)
        lines.put("fast", 100)
        lines.put("slow", 1)
        assert lines.queue.could_start() == 3

    def test_lanes_of_one_model_share_its_places(self) -> None:
        lines = Lines(Some(fast=3), projects=("p", "q"))
        lines.put("fast", 10)
        lines.put("fast", 10, project="q")
        assert lines.queue.could_start() == 3

    def test_nobody_is_called_for_what_has_no_place(self) -> None:
        called = []
        lines = Lines(Some(fast=1))
        lines.queue.when_short = lambda: called.append(1)
        lines.put("slow", 5)
        assert not called
        lines.put("fast")
        assert called


MODELS = ("a", "b", "c")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "take", "end", "back", "remove", "more", "fewer"]),
            st.sampled_from(MODELS),
            st.integers(0, 50),
        ),
        max_size=120,
    ),
    st.integers(3, 30),
)
def test_nothing_is_lost_or_taken_twice_whatever_happens(steps: list[tuple[str, str, int]], size: int) -> None:
    places = Some(a=1, b=2, c=0)
    lines = Lines(places, size, MODELS, ("p", "q"))
    waiting: set[Job] = set()
    running: list[Job] = []
    for what, model, number in steps:
        lines.clock.pass_(1)
        project = "pq"[number % 2]
        if what == "put" and lines.queue.position(project, None, model) is not None:
            waiting.update(lines.put(model, project=project))
        elif what == "take":
            job = lines.take()
            could = any(places.left[one.model] + (one is job) > 0 for one in waiting)
            assert (job is not None) == could, "whoever can be taken is taken"
            if job is not None:
                waiting.remove(job)
                running.append(job)
        elif what in {"end", "back"} and running:
            job = running.pop(number % len(running))
            places.give_back(job.model)
            if what == "back":
                lines.queue.give_back(job)
                waiting.add(job)
        elif what == "remove" and waiting:
            job = sorted(waiting, key=lambda one: one.key.session)[number % len(waiting)]
            assert lines.queue.remove(job)
            assert not lines.queue.remove(job)
            waiting.remove(job)
        elif what in {"more", "fewer"}:
            places.left[model] = max(0, places.left[model] + (1 if what == "more" else -1))
        assert len(lines.queue) == len(waiting) == sum(lines.queue.queued(each) for each in MODELS)
        assert lines.queue.could_start() <= sum(places.left.values())
    places.left.update(dict.fromkeys(MODELS, 1000))
    left = [job for _ in range(len(waiting)) if (job := lines.take()) is not None]
    assert set(left) == waiting
    assert len(left) == len(waiting)


@pytest.mark.parametrize("seed", range(3))
def test_no_taker_sleeps_while_something_could_be_taken(seed: int) -> None:
    """Threads take, run for a moment, give back; places come and go. In the end everything has run, once."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    places = Some(a=2, b=1, c=3)
    lines = Lines(places, 100_000, MODELS)
    ran: list[Job] = []
    again: set[Job] = set()

    def work() -> None:
        while (job := lines.queue.take()) is not None:
            places.give_back(job.model)
            if len(ran) % 7 == 0 and job not in again:
                again.add(job)
                lines.queue.give_back(job)
            else:
                ran.append(job)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    put = []
    for _ in range(3000):
        put += lines.put(chance.choice(MODELS))
    until(lambda: len(ran) == len(put))
    lines.queue.close()
    for thread in threads:
        thread.join(60)
    assert set(ran) == set(put)
