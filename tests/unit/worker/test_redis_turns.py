"""Who gets in and who goes next, of all that workers share: what the queue in memory says, on the same requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

from hypothesis import HealthCheck, given
from hypothesis import settings as trials
from hypothesis import strategies as st

from inferbus_worker.flow.job import Job
from inferbus_worker.flow.lane import Lane
from inferbus_worker.flow.queue import RequestQueue
from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.memory.budgets import MemoryBudgets
from inferbus_worker.state.memory.windows import MemoryWindows
from inferbus_worker.state.protocols import Window
from inferbus_worker.state.redis.bids import Charging
from inferbus_worker.state.redis.holdings import Taken
from inferbus_worker.state.redis.verdicts import Admitted, Limited, NoRoom, OverBudget
from support.redis_calls import Store, admit, bid, end, group, run
from support.rooms import FakeClock

_MODELS: Final = ("m", "n")
_SHARED: Final = trials(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@dataclass(eq=False)
class Waiting:
    """As much of a job as the queue in memory looks at."""

    name: str
    key: SessionKey
    model: str
    owner: str | None
    admitted_at: float
    look_at: float | None = None


@dataclass
class Slots:
    """So many are free of each model; see `Places`."""

    left: dict[str, int] = field(default_factory=dict)

    def has_free(self, model: str) -> bool:
        return self.left.get(model, 0) > 0

    def free(self, model: str) -> int:
        return self.left.get(model, 0)

    def acquire(self, job: Job) -> bool:
        has = self.has_free(job.model)
        self.left[job.model] = self.left.get(job.model, 0) - has
        return has


class FairLane(Lane):
    """The lane in memory, but for the order of owners: the store has them by start-time fair queueing.

    Each has one turn a round here as there; who goes first within a round may differ.
    """

    _clock = 0.0
    _returns = -1e15

    def __init__(self, lane: Lane) -> None:
        super().__init__(lane.weight, lane.priority, lane.reserved, lane.model, lane.number)
        self._scores: dict[Job, float] = {}

    def _next(self, owner: str | None) -> float:
        last = max((self._scores[job] for job in self._owners.get(owner, ())), default=0.0)
        return max(self._clock, last) + 1

    def place(self, owner: str | None) -> int:
        return sum(self._scores[job] <= self._next(owner) for job in self)

    def put(self, job: Job) -> None:
        self._scores[job] = self._next(job.owner)
        super().put(job)

    def give_back(self, job: Job) -> None:
        self._returns += 1
        self._scores[job] = self._returns
        super().give_back(job)

    def take(self, accept: Callable[[Job], bool]) -> Job | None:
        job = min(self, key=lambda job: (self._scores[job], cast("Waiting", job).name))
        if not accept(job):
            return None
        self._clock = max(self._clock, self._scores[job])
        self.remove(job)
        return job


class Both:
    """The same requests in the store and in the queue in memory."""

    def __init__(self, store: Store, projects: dict[str, ProjectSettings], size: int) -> None:
        store.clear()
        self.store = store
        self.worker = group(projects=projects, models=_MODELS, queue_size=size)
        self.slots = Slots()
        self.clock = FakeClock()
        self.queue = RequestQueue(
            size, projects, models=dict.fromkeys(projects, _MODELS), places=self.slots, ageing=5.0, clock=self.clock
        )
        self.queue._lanes = {key: FairLane(lane) for key, lane in self.queue._lanes.items()}
        self.count = 0
        self.jobs: dict[str, Waiting] = {}
        self.running: dict[str, Taken] = {}

    def put(self, project: str, model: str, owner: str | None) -> int | None:
        """Both have room or neither, and say the same position."""
        self.count += 1
        name = f"j{self.count:04}"
        position = self.queue.position(project, owner, model)
        said = admit(self.store, self.worker, bid(name, project=project, model=model, owner=owner))
        if position is None:
            assert said == NoRoom()
            return None
        assert said == Admitted(position)
        self.store.ask(self.worker.confirm([name]))
        self.jobs[name] = Waiting(name, SessionKey(project, "s"), model, owner, self.clock())
        self.queue.put(cast("Job", self.jobs[name]))
        return position

    def take(self, wanted: dict[str, int]) -> list[str]:
        """What both take, in the same order."""
        self.slots.left = dict(wanted)
        expected = []
        while (job := self.queue.take(0)) is not None:
            expected.append(cast("Waiting", job).name)
        self.count += 1
        took = self.store.ask(self.worker.take(f"t{self.count}", list(wanted.items()))).jobs
        self.running.update({taken.job: taken for taken in took})
        assert [taken.job for taken in took] == expected
        return expected

    def give_back(self) -> None:
        """What was taken first, of those that run."""
        if self.running:
            taken = self.running.pop(next(iter(self.running)))
            self.store.ask(self.worker.give_back([(taken.job, taken.token)]))
            self.queue.give_back(cast("Job", self.jobs[taken.job]))

    def pass_(self, seconds: float) -> None:
        self.store.pass_(seconds)
        self.clock.pass_(seconds)


def projects(*, priorities: st.SearchStrategy[int]) -> st.SearchStrategy[dict[str, ProjectSettings]]:
    one = st.builds(ProjectSettings, weight=st.sampled_from([0.5, 1.0, 3.0]), priority=priorities)
    return st.dictionaries(st.sampled_from(["p", "q", "r"]), one, min_size=1)


_OWNERS: Final = st.sampled_from([None, "a", "b", "c"])
_PUT: Final = st.tuples(st.just("put"), st.integers(0, 9), st.sampled_from(_MODELS), _OWNERS)
_TAKE: Final = st.tuples(st.just("take"), st.integers(0, 4), st.integers(0, 4), st.none())
_BACK: Final = st.tuples(st.just("give back"), st.none(), st.none(), st.none())
_TIME: Final = st.tuples(st.just("pass"), st.sampled_from([0.25, 3, 700]), st.none(), st.none())
_SIZES: Final = st.sampled_from([1, 4, 12, 40])


def play(both: Both, names: list[str], steps: list[tuple[Any, ...]]) -> None:
    for what, first, second, owner in steps:
        if what == "put":
            both.put(names[first % len(names)], second, owner)
        elif what == "take":
            both.take({"m": first, "n": second})
        elif what == "give back":
            both.give_back()
        else:
            both.pass_(first)


@given(
    projects(priorities=st.sampled_from([-1, 0, 2])), _SIZES, st.lists(st.one_of(_PUT, _PUT, _TAKE, _TIME), max_size=40)
)
@_SHARED
def test_room_and_turns_are_those_of_the_queue_in_memory(
    store: Store, known: dict[str, ProjectSettings], size: int, steps: list[tuple[Any, ...]]
) -> None:
    both = Both(store, known, size)
    play(both, list(known), steps)
    both.take({"m": size, "n": size})


@given(projects(priorities=st.just(0)), _SIZES, st.lists(st.one_of(_PUT, _PUT, _TAKE, _BACK), max_size=40))
@_SHARED
def test_what_comes_back_goes_before_all_others_as_in_memory(
    store: Store, known: dict[str, ProjectSettings], size: int, steps: list[tuple[Any, ...]]
) -> None:
    both = Both(store, known, size)
    play(both, list(known), steps)
    both.take({"m": 100, "n": 100})


@given(
    projects(priorities=st.sampled_from([-1, 0])), _OWNERS, st.lists(st.one_of(_PUT, _PUT, _TAKE, _TIME), max_size=30)
)
@_SHARED
def test_no_more_go_before_a_request_than_it_was_told(
    store: Store, known: dict[str, ProjectSettings], owner: str | None, steps: list[tuple[Any, ...]]
) -> None:
    both = Both(store, known, 40)
    play(both, list(known), steps)
    position = both.put(next(iter(known)), "m", owner)
    if position is None:
        return
    last = f"j{both.count:04}"
    assert both.take({"m": 100}).index(last) <= position


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), max_size=3, unique_by=lambda window: window[0]),
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from([0.0, 0.5, 4.0, 11.0])), max_size=40),
)
@_SHARED
def test_windows_let_through_what_those_in_memory_do(
    store: Store, rates: list[tuple[str, int]], steps: list[tuple[int, float]]
) -> None:
    """Of every request some of the windows are asked, each of ten seconds."""
    store.clear()
    clock = FakeClock()
    memory, worker = MemoryWindows(100, clock=clock), group(queue_size=1000)
    for number, (which, seconds) in enumerate(steps):
        asked = [(name, limit) for bit, (name, limit) in enumerate(rates) if which >> bit & 1]
        wait = memory.admit([Window(name, "k", RateLimit(limit, 10.0)) for name, limit in asked])
        said = admit(store, worker, bid(f"j{number}", windows=tuple((name, limit, 10.0) for name, limit in asked)))
        assert isinstance(said, Admitted) if wait is None else said == Limited(wait)
        store.pass_(seconds)
        clock.pass_(seconds)


@given(
    st.lists(
        st.tuples(st.integers(1, 50), st.none() | st.integers(0, 50), st.sampled_from([0.0, 1.0, 7.0])), max_size=40
    )
)
@_SHARED
def test_budgets_let_through_what_those_in_memory_do(store: Store, steps: list[tuple[int, int | None, float]]) -> None:
    """100 tokens in ten seconds; what a request took takes the place of its charge, or the charge stays."""
    store.clear()
    clock = FakeClock()
    memory, worker = MemoryBudgets(RateLimit(100, 10.0), clock=clock), group()
    for number, (tokens, used, seconds) in enumerate(steps):
        charge = memory.charge(SessionKey("p", "s"), tokens)
        asked = Charging(tokens, 0, 0, 0, 100, 10.0)
        if isinstance(charge, float | int):
            assert admit(store, worker, bid(f"j{number}", session="s", charge=asked)) == OverBudget(charge)
        else:
            taken = run(store, worker, f"j{number}", f"t{number}", session="s", charge=asked)
            assert end(store, worker, taken, used_tokens=used) is not None
            if used is not None:
                charge.settle(used)
        store.pass_(seconds)
        clock.pass_(seconds)


def test_a_project_that_was_away_starts_level_with_the_others(store: Store) -> None:
    """Idling earns no credit."""
    both = Both(store, {"p": ProjectSettings(), "q": ProjectSettings()}, 40)
    for _ in range(12):
        both.put("p", "m", None)
    both.take({"m": 8})
    for _ in range(4):
        both.put("q", "m", None)
    projects = [both.jobs[name].key.project for name in both.take({"m": 8})]
    assert projects == ["q", "p"] * 4


def test_lanes_without_number_may_wait_at_once(store: Store) -> None:
    """More than one call of a script's may name."""
    names = [f"p{number}" for number in range(3000)]
    one = group(projects={name: ProjectSettings() for name in names}, queue_size=10_000)
    prefix = one.prefix
    for name in names:
        lane = f"{name}/m"
        store.client.zadd(f"{prefix}lane:{lane}", {name: 1})
        for name_of_field, value in {
            "state": "queued",
            "lane": lane,
            "model": "m",
            "at": 0,
            "score": 1,
            "run": 0,
        }.items():
            store.client.hset(f"{prefix}job:{name}", name_of_field, str(value))
        store.client.hset(f"{prefix}lengths", lane, 1)
    store.client.hset(f"{prefix}turns", mapping={f"t{name}/m": 5 for name in names if name != "p2777"})
    assert [taken.job for taken in store.ask(one.take("t", [("m", 1)])).jobs] == ["p2777"]
