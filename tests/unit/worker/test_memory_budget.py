"""Whose turn it is in memory: pure logic, on a clock that tests move."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferbus_client.errors import SettingsError
from inferbus_worker.engines.managed.memory import TERM, MemoryBudget
from inferbus_worker.engines.managed.places import Place, Plan, places_of
from inferbus_worker.settings.models import ModelSettings
from support.rooms import FakeClock


def place(slot: str, memory: int | None = 10, **fields: object) -> Place:
    """One on demand, of the model that its name begins with."""
    more = {"model": slot.partition("-")[0], "at_once": 2, "stays": False, "idle_stop": 600.0, **fields}
    return Place(slot=slot, memory=memory, **more)  # type: ignore[arg-type]


@dataclass
class Asked:
    """See `places.Demand`."""

    queued: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    busy: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    used: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def waiting(self, model: str) -> int:
        return self.queued[model]

    def active(self, slot: str) -> int:
        return self.busy[slot]

    def used_at(self, slot: str) -> float:
        return self.used[slot]


class Host:
    """A budget, and servers that come up and end when a test says so."""

    def __init__(self, total: int | None, *places: Place) -> None:
        self.clock = FakeClock()
        self.asked = Asked()
        self.budget = MemoryBudget(total, places, clock=self.clock)

    def plan(self, **queued: int) -> Plan:
        self.asked.queued.update(queued)
        return self.budget.plan(self.asked)

    def plans(self, **queued: int) -> Plan:
        """Twice: what is to be stopped is closed first."""
        self.plan(**queued)
        return self.plan()

    def up(self, *slots: str, measured: int | None = None) -> None:
        for slot in slots:
            self.budget.sees(slot, "ready", measured)

    def run(self, model: str) -> Plan:
        """Have a model's server started, and its requests answered."""
        plan = self.plan(**{model: 1})
        self.up(*plan.start)
        self.plan(**{model: 0})
        self.asked.used[model] = self.clock.now
        return plan


def test_what_always_runs_is_started_first_and_never_stopped() -> None:
    host = Host(20, place("a", stays=True), place("b"))
    assert host.plan().start == ["a"]
    host.up("a")
    host.clock.pass_(100_000)
    assert host.plans() == Plan([], {}, set(), {})


def test_a_model_is_started_when_it_is_asked_for_and_once() -> None:
    host = Host(20, place("a"), place("b"))
    assert host.plan().start == []
    assert host.plan(a=1).start == ["a"]
    assert host.budget.is_starting("a")
    assert host.plan(a=2).start == [], "they join the start under way"
    assert not host.budget.is_open("a")
    host.up("a")
    assert host.budget.is_open("a")


def test_room_is_made_by_the_idle_one_that_was_used_least_recently() -> None:
    host = Host(30, place("a"), place("b"), place("c"), place("d"))
    for model in "bac":
        host.run(model)
        host.clock.pass_(1)
    plan = host.plan(d=1)
    assert plan.closed == {"b"}
    assert not plan.stop
    assert not host.budget.is_open("b")
    assert host.plan().stop == {"b": "it makes room for d"}
    assert host.plan().start == []
    host.budget.gone("b")
    assert host.plan().start == ["d"]


def test_no_more_make_way_than_have_to() -> None:
    host = Host(30, place("a", 5), place("b", 20), place("c", 5), place("d", 20))
    for model in "abc":
        host.run(model)
        host.clock.pass_(1)
    assert set(host.plans(d=1).stop) == {"b"}, "a was used before, and would not be enough"


def test_a_busy_one_is_not_stopped_and_gets_no_more_after_its_term() -> None:
    host = Host(10, place("a"), place("b"))
    host.run("a")
    host.asked.busy["a"] = 1
    host.clock.pass_(TERM - 1)
    assert host.plans(b=1) == Plan([], {}, set(), {"b": "the others are busy, or have just been started"})
    host.clock.pass_(1)
    plan = host.plans(a=3)
    assert plan.closed == {"a"}
    assert not plan.stop
    host.asked.busy["a"] = 0
    assert host.plan().stop == {"a": "it makes room for b"}
    host.budget.gone("a")
    assert host.plan().start == ["b"]
    assert list(host.plan().waits) == ["a"], "and now waits itself"


def test_one_that_got_a_request_while_it_was_closed_is_not_stopped() -> None:
    host = Host(10, place("a"), place("b"))
    host.run("a")
    assert host.plan(b=1).closed == {"a"}
    host.asked.busy["a"] = 1
    plan = host.plan()
    assert not plan.stop
    assert not plan.closed, "it has work, and its term is not over"
    assert host.budget.is_open("a")


@pytest.mark.parametrize("look", range(1, 9))
def test_none_is_stopped_that_gets_a_request_between_two_looks(look: int) -> None:
    host = Host(10, place("a"), place("b"))
    host.run("a")
    looks = count()

    def active(slot: str) -> int:
        found = host.asked.busy[slot]
        if slot == "a" and next(looks) >= look and host.budget.is_open("a"):  # it comes right after this look
            host.asked.busy["a"] = 1
        return found

    host.asked.active = active  # type: ignore[method-assign]
    plans = [host.plan(b=1), host.plan(), host.plan()]
    assert any(plan.stop for plan in plans) == (host.asked.busy["a"] == 0)


def test_one_with_work_waiting_is_left_its_term() -> None:
    host = Host(10, place("a"), place("b"))
    host.up(*host.plan(a=1).start)
    assert not host.plans(b=1).stop
    host.clock.pass_(TERM)
    assert set(host.plans().stop) == {"a"}


def test_two_that_are_asked_in_turns_change_places_once_a_minute() -> None:
    host = Host(10, place("a"), place("b"))
    host.run("a")
    departures: list[tuple[float, str]] = []
    began = host.clock.now
    for model in "babababa":
        host.asked.queued[model] = 1
        while not host.budget.is_open(model):
            plan = host.plan()
            for slot in plan.stop:
                departures.append((host.clock.now - began, slot))
                host.budget.gone(slot)
            host.up(*plan.start)
            host.clock.pass_(1)
            assert host.clock.now - began < 600
        host.asked.queued[model] = 0
        host.plan()
    for slot in "ab":
        times = [time for time, who in departures if who == slot]
        assert len(times) == 4
        assert all(after - before >= TERM for before, after in pairwise(times))
    assert departures[1][0] < TERM, "the first exchange is at once"


def test_nobody_behind_takes_what_the_first_in_line_waits_for() -> None:
    host = Host(30, place("a", 20), place("big", 30), place("small", 10))
    host.run("a")
    host.asked.busy["a"] = 1
    assert list(host.plan(big=1).waits) == ["big"]
    host.clock.pass_(1)
    assert host.plan(small=1).start == []
    host.clock.pass_(TERM)
    host.asked.busy["a"] = 0
    assert set(host.plans().stop) == {"a"}
    host.budget.gone("a")
    assert host.plan().start == ["big"]


def test_an_idle_one_goes_after_its_time_and_never_below_the_least() -> None:
    host = Host(None, place("a-1", stays=True, idle_stop=5.0), place("a-2", idle_stop=5.0))
    host.up(*host.plan().start)
    host.up(*host.plan(a=3).start)
    host.plan(a=0)
    host.asked.used["a-2"] = host.clock.now + 3
    host.clock.pass_(7)
    assert not host.plans().stop
    host.clock.pass_(1)
    assert host.plans().stop == {"a-2": "nobody has asked for it"}


def test_more_are_started_while_the_queue_is_longer_than_they_take_at_once() -> None:
    host = Host(20, place("a-1"), place("a-2"), place("a-3"))
    assert host.plan(a=2).start == ["a-1"]
    host.up("a-1")
    assert host.plan(a=2).start == []
    assert host.plan(a=3).start == ["a-2"]
    assert host.plan(a=9).start == [], "memory does not allow a third"


def test_one_that_does_not_come_up_makes_way() -> None:
    host = Host(10, place("a"), place("b"))
    host.plan(a=1)
    host.budget.sees("a", "failed", None)
    assert set(host.plans(b=1).stop) == {"a"}


def test_what_a_server_really_took_counts_where_it_is_more() -> None:
    host = Host(30, place("a", 10), place("b", 10), place("c", 10))
    host.up(*host.plan(a=1).start, measured=21)
    host.plan(a=0)
    assert host.budget.held == 21
    assert host.plans(b=1).stop == {"a": "it makes room for b"}
    host.budget.gone("a")
    host.up(*host.plan().start, measured=4)
    assert host.budget.held == 10


def test_what_could_never_fit_is_refused_in_words() -> None:
    with pytest.raises(SettingsError, match=r"^models\.a: it takes 3 GiB, which never fits into the memory_budget of "):
        MemoryBudget(2 << 30, [place("a", 3 << 30)])
    with pytest.raises(SettingsError, match="2 GiB beside the 1 GiB of those that always run"):
        MemoryBudget(2 << 30, [place("a", 2 << 30), place("b", 1 << 30, stays=True)])
    with pytest.raises(SettingsError, match=r"models that always run \(a, b\) take 4 GiB together"):
        MemoryBudget(3 << 30, [place("a", 2 << 30, stays=True), place("b", 2 << 30, stays=True)])
    with pytest.raises(SettingsError, match=r"models\.a: memory_budget needs to know what it takes: say memory"):
        MemoryBudget(1, [place("a", None)])
    MemoryBudget(None, [place("a", None)])


def test_places_follow_from_the_settings() -> None:
    def places(**model: object) -> list[Place | None]:
        return places_of("phi", ModelSettings.model_validate(model))

    here = {"backend": "llama.cpp", "path": "m.gguf", "memory": "1 GiB", "idle_stop": "5m"}
    assert places(**here) == [Place("phi", "phi", 1 << 30, 1, stays=True, idle_stop=300.0)]
    assert [it and it.stays for it in places(**here, when="on-demand")] == [False]
    ranged = places(**here, slots={"min": 1, "max": 3})
    assert [(it.slot, it.stays) for it in ranged if it] == [("phi-1", True), ("phi-2", False), ("phi-3", False)]
    listed = places(slots=[{"backend": "ollama", "url": "http://a"}, here])
    assert [it and it.slot for it in listed] == [None, "phi-2"]


class World:
    """Requests that come and go at random, on servers that take their time."""

    def __init__(self, total: int, places: list[Place], seed: int) -> None:
        self.host = Host(total, *places)
        self.total = total
        self.places = {it.slot: it for it in places}
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.queue: dict[str, list[float]] = defaultdict(list)  # model: when each came
        self.ends: dict[str, list[float]] = defaultdict(list)  # slot: when each under way is over
        self.coming: dict[str, float] = {}
        self.going: dict[str, float] = {}
        self.left: dict[tuple[str, str], float] = {}
        self.longest = 0.0

    @property
    def now(self) -> float:
        return self.host.clock.now

    def second(self, *, may_come: bool) -> None:
        self.host.clock.pass_(1)
        self._end()
        if may_come and self.random.random() < 0.1:
            model = self.random.choice(list(self.places.values())).model
            self.queue[model] += [self.now] * self.random.randint(1, 4)
        self._take()
        for _ in range(2):
            self._follow(self.host.budget.plan(self.host.asked))

    def _end(self) -> None:
        for slot, ends in self.ends.items():
            if any(end <= self.now for end in ends):
                self.host.asked.used[slot] = self.now
            self.ends[slot] = [end for end in ends if end > self.now]
            self.host.asked.busy[slot] = len(self.ends[slot])
        for slot in [slot for slot, when in self.coming.items() if when <= self.now]:
            del self.coming[slot]
            self.host.budget.sees(slot, self.random.choice(["ready", "ready", "ready", "failed"]), None)
            if not self.host.budget.is_open(slot):
                self.coming[slot] = self.now + 2
        for slot in [slot for slot, when in self.going.items() if when <= self.now]:
            del self.going[slot]
            self.host.budget.gone(slot)

    def _take(self) -> None:
        for slot, it in self.places.items():
            queue = self.queue[it.model]
            while queue and self.host.budget.is_open(slot) and len(self.ends[slot]) < it.at_once:
                self.longest = max(self.longest, self.now - queue.pop(0))
                self.ends[slot].append(self.now + self.random.uniform(0, 4))
                self.host.asked.used[slot] = self.now
            self.host.asked.busy[slot] = len(self.ends[slot])
            self.host.asked.queued[it.model] = len(queue)

    def _follow(self, plan: Plan) -> None:
        for slot, why in plan.stop.items():
            assert not self.ends[slot], "a busy one was stopped"
            assert not self.places[slot].stays
            self.coming.pop(slot, None)
            self.going[slot] = self.now + self.random.uniform(0, 5)
            if why.startswith("it makes room for "):
                pair = self.places[slot].model, why.removeprefix("it makes room for ")
                assert self.now == self.left.get(pair) or self.now - self.left.get(pair, -TERM) >= TERM, pair
                self.left[pair] = self.now
        for slot in plan.start:
            self.coming[slot] = self.now + self.random.uniform(0, 15)
        taken = {slot for slot in self.places if self.host.budget._slots[slot].phase != "off"}
        assert sum(self.places[slot].memory or 0 for slot in taken) <= self.total


PLACES = st.lists(st.tuples(st.integers(1, 10), st.integers(1, 3), st.booleans()), min_size=1, max_size=4)


@settings(max_examples=100)
@given(PLACES, st.integers(0, 15), st.integers(0, 2**32))
def test_whatever_comes_memory_holds_nobody_busy_goes_and_everybody_is_served(
    models: list[tuple[int, int, bool]], spare: int, seed: int
) -> None:
    places = [
        place(f"{name}-{number}", memory, stays=stays and number == 0, idle_stop=float(30 * memory))
        for name, (memory, count, stays) in zip("abcd", models, strict=False)
        for number in range(count)
    ]
    staying = sum(it.memory or 0 for it in places if it.stays)
    most = max((it.memory or 0 for it in places if not it.stays), default=0)
    world = World(staying + most + spare, places, seed)
    for second in range(1200):
        world.second(may_come=second < 600)
    assert not any(world.queue.values())
    # Those before it in line: their terms, what they have under way, their starts, stops and failures.
    assert world.longest < len(models) * (2 * TERM + 60)
