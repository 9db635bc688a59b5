"""Within a project: owners take turns and share the room; and leaving costs the same however many wait."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferbus_worker.flow.job import Job
from support.line import Line

WHO_VOUCHES = pytest.mark.parametrize("users", [True, False], ids=["topic", "clientId"])


@WHO_VOUCHES
class TestTurns:
    def test_a_flood_of_one_owner_delays_another_by_one_request(self, users: bool) -> None:  # noqa: FBT001
        line = Line(users=users, a={})
        line.put("a", 500, owner="eve")
        line.put("a", owner="alice")
        assert "alice" in line.take_owners(2)

    def test_owners_share_evenly_whoever_came_first(self, users: bool) -> None:  # noqa: FBT001
        line = Line(users=users, a={})
        for owner in ("eve", "alice", "bob"):
            line.put("a", 50, owner=owner)
        assert Counter(line.take_owners(60)) == {"eve": 20, "alice": 20, "bob": 20}

    def test_each_owner_s_own_requests_keep_their_order(self, users: bool) -> None:  # noqa: FBT001
        line = Line(users=users, a={})
        jobs = {owner: line.put("a", 10, owner=owner) for owner in ("eve", "alice")}
        taken = [line.queue.take() for _ in range(20)]
        for owner, put in jobs.items():
            assert [job for job in taken if job in put] == put, owner

    def test_coming_back_again_and_again_earns_no_second_turn(self, users: bool) -> None:  # noqa: FBT001
        line = Line(users=users, a={})
        line.put("a", 50, owner="patient")
        taken: list[str | None] = []
        for _ in range(40):
            line.put("a", owner="eager")
            taken += line.take_owners(1)
        assert abs(Counter(taken)["patient"] - Counter(taken)["eager"]) <= 1

    def test_weights_and_priorities_of_projects_stay(self, users: bool) -> None:  # noqa: FBT001
        line = Line(users=users, a={"weight": 3}, b={"weight": 1}, urgent={"priority": 1})
        line.put("a", 60, owner="eve")
        line.put("b", 60, owner="alice")
        line.put("urgent", 2, owner="bob")
        assert Counter(line.take(42)) == {"urgent": 2, "a": 30, "b": 10}

    def test_ageing_goes_by_the_oldest_request_whoever_s_it_is(self, users: bool) -> None:  # noqa: FBT001
        line = Line(ageing=5, users=users, low={}, high={"priority": 2})
        line.put("low", owner="old")
        line.clock.pass_(11)
        line.put("low", owner="new")
        line.put("high", owner="eve")
        assert line.take(1) == ["low"]
        assert line.take(2) == ["high", "low"]  # what is left of `low` has not waited


class TestNameless:
    def test_those_who_name_nobody_are_one_owner(self) -> None:
        line = Line(a={})
        line.put("a", 100)
        line.put("a", 10, owner="alice")
        assert Counter(line.take_owners(20)) == {None: 10, "alice": 10}

    def test_may_have_all_of_the_room_while_nobody_has_a_name(self) -> None:
        assert Line(16, a={}).fill("a") == 16

    def test_leave_some_room_once_somebody_had_a_name_even_if_he_was_refused(self) -> None:
        line = Line(16, a={})
        line.fill("a")
        assert line.queue.position("a", "alice") is None
        line.take(2)
        assert line.queue.position("a") is None
        assert line.queue.position("a", "alice") is not None

    def test_have_all_of_the_room_again_when_it_is_long_ago_that_somebody_had_a_name(self) -> None:
        line = Line(16, a={})
        line.put("a", owner="alice")
        line.take(1)
        line.clock.pass_(3600)
        assert line.fill("a") == 16


@WHO_VOUCHES
class TestRoom:
    def test_one_owner_leaves_some_for_the_first_request_of_another(self, users: bool) -> None:  # noqa: FBT001
        line = Line(1000, users=users, a={})
        assert 800 <= line.fill("a", "eve") < 1000
        for owner in ("alice", "bob", "carol"):
            line.put("a", owner=owner)

    def test_two_who_want_all_of_it_get_the_same(self, users: bool) -> None:  # noqa: FBT001
        line = Line(1000, users=users, a={})
        while rooms := [owner for owner in ("eve", "mallory") if line.queue.position("a", owner) is not None]:
            for owner in rooms:
                line.put("a", owner=owner)
        taken = Counter(line.take_owners(len(line.queue)))
        assert abs(taken["eve"] - taken["mallory"]) <= 1
        assert sum(taken.values()) < 1000

    def test_who_held_most_of_it_gives_way_as_it_is_served(self, users: bool) -> None:  # noqa: FBT001
        line = Line(100, users=users, a={})
        line.fill("a", "eve")
        held: Counter[str | None] = Counter({"eve": len(line.queue)})
        for _ in range(400):  # one is taken, and both want its place
            held.subtract(line.take_owners(1))
            for owner in ("eve", "alice"):
                if line.queue.position("a", owner) is not None:
                    line.put("a", owner=owner)
                    held[owner] += 1
        assert 0.8 < held["alice"] / held["eve"] < 1.25

    def test_other_projects_keep_theirs(self, users: bool) -> None:  # noqa: FBT001
        line = Line(100, users=users, flood={}, quiet={})
        line.fill("flood", "eve")
        assert line.fill("quiet", "eve") >= 20

    @pytest.mark.parametrize("size", range(1, 8))
    def test_small_queues_are_usable_by_one_alone(self, size: int, users: bool) -> None:  # noqa: FBT001
        assert Line(size, users=users, a={}).fill("a", "eve") == size


class TestPosition:
    """The place is what the order of turns will make of it, not how many wait in all."""

    def test_behind_another_s_flood(self) -> None:
        line = Line(a={})
        line.put("a", 500, owner="eve")
        assert line.queue.position("a", "alice") == 1
        assert line.queue.position("a", "eve") == 500

    def test_behind_one_s_own(self) -> None:
        line = Line(a={})
        line.put("a", 500, owner="eve")
        line.put("a", 3, owner="alice")
        assert line.queue.position("a", "alice") == 7  # three of one's own, and a turn of eve's before each and itself

    def test_behind_another_project_s_flood(self) -> None:
        line = Line(a={}, b={"weight": 4})
        line.put("a", 500)
        assert line.queue.position("b") == 1

    def test_behind_what_is_more_urgent(self) -> None:
        line = Line(ageing=5, low={}, high={"priority": 1})
        line.put("high", 20)
        line.put("low", 30)
        assert line.queue.position("low") == 50
        assert line.queue.position("high") == 20

    def test_behind_what_has_waited_long(self) -> None:
        line = Line(ageing=5, low={}, high={"priority": 1})
        line.put("low", 30)
        line.clock.pass_(6)
        assert line.queue.position("high") == 30

    @given(
        st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["eve", "alice", None])), max_size=40),
        st.sampled_from("ab"),
        st.sampled_from(["eve", "alice", None]),
        st.integers(0, 20),
    )
    def test_never_a_better_place_than_it_gets(
        self, arrivals: list[tuple[str, str | None]], project: str, owner: str | None, taken: int
    ) -> None:
        line = Line(a={"weight": 2}, b={})
        for other, whose in arrivals:
            line.put(other, owner=whose)
        line.take_owners(min(taken, len(line.queue)))
        place = line.queue.position(project, owner)
        (job,) = line.put(project, owner=owner)
        order = [line.queue.take() for _ in range(len(line.queue))]
        assert place is not None
        assert order.index(job) <= place


@dataclass
class NaiveQueue:
    """The same, told in the plainest words: two projects of one priority, owners in rotation, jobs in lists."""

    weights: dict[str, float]
    turns: dict[str, float] = field(default_factory=dict)
    now: float = 0.0
    waiting: dict[str, dict[str | None, list[Job]]] = field(default_factory=dict)
    rotation: dict[str, deque[str | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.turns = dict.fromkeys(self.weights, 0.0)
        self.waiting = {name: {} for name in self.weights}
        self.rotation = {name: deque() for name in self.weights}

    def put(self, project: str, owner: str | None, job: Job) -> None:
        if not any(self.waiting[project].values()):
            self.turns[project] = max(self.turns[project], self.now)
        if not self.waiting[project].get(owner):
            self.rotation[project].append(owner)
        self.waiting[project].setdefault(owner, []).append(job)

    def take(self) -> Job:
        project = min((name for name in self.weights if self.rotation[name]), key=lambda name: self.turns[name])
        self.now = self.turns[project]
        self.turns[project] += 1 / self.weights[project]
        owner = self.rotation[project].popleft()
        job = self.waiting[project][owner].pop(0)
        if self.waiting[project][owner]:
            self.rotation[project].append(owner)
        return job

    def remove(self, job: Job) -> bool:
        for project, owners in self.waiting.items():
            for owner, jobs in owners.items():
                if job in jobs:
                    jobs.remove(job)
                    if not jobs:
                        self.rotation[project].remove(owner)
                    return True
        return False

    def __len__(self) -> int:
        return sum(len(jobs) for owners in self.waiting.values() for jobs in owners.values())


STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("ab"), st.sampled_from(["eve", "alice", "bob", None])),
    st.tuples(st.just("take")),
    st.tuples(st.just("remove"), st.integers(0, 60)),
)


@given(st.lists(STEPS, max_size=80))
def test_it_does_what_a_naive_queue_does(steps: list[tuple[Any, ...]]) -> None:
    line, naive = Line(a={"weight": 3}, b={}), NaiveQueue({"a": 3, "b": 1})
    put: list[Job] = []
    for step in steps:
        match step:
            case ("put", project, owner):
                (job,) = line.put(project, owner=owner)
                naive.put(project, owner, job)
                put.append(job)
            case ("take",) if len(naive):
                assert line.queue.take() is naive.take()
            case ("remove", number) if number < len(put):
                assert line.queue.remove(put[number]) == naive.remove(put[number])
        assert len(line.queue) == len(naive)


class TestLeaving:
    def test_what_was_cancelled_is_kept_nowhere(self) -> None:
        line = Line(1_000_000, a={})
        line.put("a", owner="waits")  # the oldest, and still there: nothing behind it may pile up
        for _ in range(1000):
            (job,) = line.put("a", owner="eve", deadline=line.clock() + 86_400)
            assert line.queue.remove(job)
        line.queue.due()
        (lane,) = line.queue._lanes.values()
        assert (len(lane), len(lane._owners), len(line.queue)) == (1, 1, 1)
        assert len(line.queue._looks) < 200

    def test_deadlines_are_kept_nowhere_after_the_last_has_left(self) -> None:
        """Deadlines were swept only when another request with one came."""
        line = Line(1_000_000, a={})
        for job in line.put("a", 5000, deadline=line.clock() + 86_400):
            line.queue.remove(job)
        line.queue.due()
        assert len(line.queue._looks) < 200

    def test_removing_looks_at_no_other_request(self) -> None:
        """It compared each one that waited: 15.6 ms for a cancel behind a million."""
        line = Line(1_000_000, a={})
        jobs = line.put("a", 2000, owner="eve")
        looked = Counter[str]()

        def counting(self: Job, other: object) -> bool:
            looked["times"] += 1
            return self is other

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Job, "__eq__", counting)
            patch.setattr(Job, "__hash__", object.__hash__)
            for job in reversed(jobs):
                assert line.queue.remove(job)
        assert looked["times"] <= len(jobs) * math.log2(len(jobs))
