"""Who gets which slot, what a slot is told of how it went, and that nothing keeps one that it gave back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inferbus_worker.engines.base import (
    BackendError,
    CancelledGenerationError,
    ContextTooLongError,
    EngineError,
    GenerationTimeoutError,
    InvalidCallError,
)
from inferbus_worker.engines.limit import FixedLimit
from inferbus_worker.engines.slot import Model, Slot
from inferbus_worker.engines.slots import Lease, SlotTable
from support.model_slots import model_of
from support.rooms import FakeClock, ScriptedEngine

DOWN = BackendError("gone", "connection")
BUSY = BackendError("enough to do", "429", retry_after=5)


@dataclass(eq=False)
class Asker:
    """See `slots.Tenant`."""

    model: str = "m"
    key: str = "s"
    attempts: list[str] = field(default_factory=list)
    may_repeat_at: float = 0.0
    waits_since: float = 0.0
    lease: Lease | None = None

    def end(self, error: BaseException | None = None) -> None:
        assert self.lease is not None
        self.lease.end(error)


def table(*capacities: int, max_threads: int | None = None, clock: FakeClock | None = None) -> SlotTable:
    """A table of one model `m` with a slot for each of the capacities."""
    clock = clock or FakeClock()
    return tables({"m": capacities}, max_threads=max_threads, clock=clock)


def tables(models: dict[str, Sequence[int]], *, max_threads: int | None = None, clock: FakeClock) -> SlotTable:
    made = {
        name: model_of(name, [ScriptedEngine(capacity=each) for each in capacities], clock)
        for name, capacities in models.items()
    }
    return SlotTable(made, max_threads=max_threads, clock=clock)


def taken(slots: SlotTable, **fields: object) -> Asker:
    asker = Asker(**fields)  # type: ignore[arg-type]
    assert slots.acquire(asker)
    return asker


def name_of(asker: Asker) -> str:
    assert asker.lease is not None
    return asker.lease.slot.name


class TestChoice:
    def test_the_emptiest_in_proportion_to_its_limit(self) -> None:
        slots = table(8, 2)
        names = Counter(name_of(taken(slots, key=f"s{number}")) for number in range(5))
        assert names == {"m/1": 4, "m/2": 1}

    def test_of_equals_the_one_on_the_less_loaded_host(self) -> None:
        clock = FakeClock()
        slots = tables({"a": [4], "m": [4, 4]}, clock=clock)
        taken(slots, model="a")  # on host1, where m/1 is
        assert name_of(taken(slots)) == "m/2"

    def test_of_equals_the_one_used_last(self) -> None:
        """Its caches are warm."""
        clock = FakeClock()
        slots = table(1, 1, 1, clock=clock)
        first = [taken(slots, key=f"s{number}") for number in range(3)]
        for asker in (first[0], first[2], first[1]):
            clock.pass_(1)
            asker.end()
        assert name_of(taken(slots, key="new")) == name_of(first[1])

    def test_a_session_goes_back_to_the_slot_that_served_it(self) -> None:
        slots = table(4, 4)
        before = taken(slots, key="mine")
        other = taken(slots, key="other")
        before.end()
        other.end()
        assert name_of(taken(slots, key="mine")) == name_of(before)

    def test_a_session_goes_elsewhere_where_its_slot_is_clearly_busier(self) -> None:
        slots = table(4, 4)
        before = taken(slots, key="mine")
        before.end()
        others = [taken(slots, key=f"s{number}") for number in range(4)]
        for asker in others:
            if name_of(asker) != name_of(before):
                asker.end()
        while True:
            asker = taken(slots, key="x")
            if asker.lease is not None and asker.lease.slot.active >= 3:
                break
        assert name_of(taken(slots, key="mine")) != name_of(asker)

    def test_a_slot_that_has_failed_a_request_gets_it_last(self) -> None:
        clock = FakeClock()
        slots = table(4, 4, clock=clock)
        asker = taken(slots)
        failed = name_of(asker)
        asker.end(DOWN)
        assert slots.acquire(asker)
        assert name_of(asker) != failed


class TestWhatASlotHears:
    @pytest.mark.parametrize(
        "error", [CancelledGenerationError(), ContextTooLongError(), InvalidCallError("no"), GenerationTimeoutError()]
    )
    def test_what_the_requester_does_is_no_fault_of_the_slot(self, error: EngineError) -> None:
        slots = table(4)
        (slot,) = slots.slots
        for _ in range(10):
            taken(slots).end(error)
        assert slot.may_serve
        assert slot.reading().errors == {}

    def test_failures_open_its_breaker(self) -> None:
        slots = table(4)
        (slot,) = slots.slots
        for number in range(5):
            taken(slots, key=str(number)).end(DOWN)
        assert not slot.may_serve
        assert not slots.has_free("m")
        assert slot.reading().errors == {"connection": 5}

    def test_a_refusal_pauses_it_for_as_long_as_the_backend_says(self) -> None:
        clock = FakeClock()
        slots = table(4, clock=clock)
        (slot,) = slots.slots
        taken(slots).end(BUSY)
        assert slot.may_serve  # it is well, and has enough to do
        assert not slots.has_free("m")
        clock.pass_(5)
        assert slots.has_free("m")

    def test_a_refusal_without_a_time_pauses_it_longer_each_time(self) -> None:
        clock = FakeClock()
        slots = table(4, clock=clock)
        (slot,) = slots.slots
        pauses = []
        for _ in range(40):
            slot.refused(BackendError("enough to do", "503"))
            pauses.append(slot.pause_left)
            clock.pass_(pauses[-1])
        assert 0.25 <= pauses[0] <= 0.5
        assert pauses[5] > 4
        assert max(pauses) <= 30

    @pytest.mark.parametrize("error", [RuntimeError("a bug"), SystemExit(1), KeyboardInterrupt()])
    def test_whatever_ends_a_turn_gives_the_slot_back(self, error: BaseException) -> None:
        slots = table(1)
        taken(slots).end(error)
        assert slots.active == 0
        assert slots.has_free("m")

    def test_a_slot_whose_engine_cannot_be_asked_is_given_back_all_the_same(self) -> None:
        """What is told of a slot asks the engine for its headroom; one that raised there kept the slot for ever."""

        class Broken(ScriptedEngine):
            @property
            def headroom(self) -> float | None:
                raise RuntimeError("a bug")

            @headroom.setter
            def headroom(self, value: float | None) -> None: ...

        clock = FakeClock()
        slots = SlotTable({"m": model_of("m", [Broken(capacity=1)], clock)}, clock=clock)
        asker = taken(slots)
        with pytest.raises(RuntimeError):
            asker.end()
        assert slots.active == 0
        assert slots.has_free("m")

    def test_a_slot_is_given_back_once(self) -> None:
        slots = table(1)
        asker = taken(slots)
        asker.end()
        asker.end(DOWN)
        (slot,) = slots.slots
        assert (slot.active, slots.active) == (0, 0)
        assert slot.reading().requests == 1


class TestThreads:
    def test_no_model_takes_the_last_thread_of_one_that_has_none(self) -> None:
        slots = tables({"fast": [8], "slow": [8]}, max_threads=3, clock=FakeClock())
        for number in range(2):
            taken(slots, model="slow", key=str(number))
        assert not slots.has_free("slow")
        assert not slots.acquire(Asker(model="slow"))
        assert slots.has_free("fast")

    def test_no_thread_is_kept_for_a_model_that_nothing_serves(self) -> None:
        """A dead model's thread was kept from the others for as long as the worker lived."""
        slots = tables({"dead": [8], "well": [8]}, max_threads=2, clock=FakeClock())
        next(iter(slots.slots)).state = "down"
        for number in range(2):
            taken(slots, model="well", key=str(number))
        assert slots.active == 2

    def test_what_may_run_is_bounded_by_the_threads(self) -> None:
        slots = tables({"a": [200], "b": [100]}, max_threads=10, clock=FakeClock())
        assert (slots.threads, slots.size) == (10, 10)
        assert slots.of("a") == (0, 10)

    def test_a_model_that_comes_back_while_all_threads_are_busy_waits_for_one(self) -> None:
        slots = tables({"a": [3], "b": [2]}, max_threads=3, clock=FakeClock())
        (late,) = (slot for slot in slots.slots if slot.model.key == "b")
        late.state = "down"
        for _ in range(3):
            taken(slots, model="a")
        late.state = "ready"
        assert not slots.has_free("b")
        assert slots.free("b") == 0
        assert not slots.acquire(Asker(model="b"))

    def test_it_says_how_many_more_of_a_model_could_run(self) -> None:
        slots = tables({"a": [3, 2], "b": [100]}, max_threads=50, clock=FakeClock())
        taken(slots, model="a")
        assert slots.free("a") == 4
        assert slots.free("b") == 49


class SlotsInUse(RuleBasedStateMachine):
    """Anything happens to three slots of two models; what is under way stays what was taken and not given back."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.table = tables({"a": [2, 3], "b": [2]}, max_threads=5, clock=self.clock)
        self.under_way: list[Asker] = []
        self.waiting: list[Asker] = []

    @rule(model=st.sampled_from("ab"), session=st.integers(0, 3))
    def take(self, model: str, session: int) -> None:
        said = self.table.has_free(model)
        asker = Asker(model=model, key=str(session))
        got = self.table.acquire(asker)
        assert got == said, "a request that no slot has failed is taken where there is a free slot"
        if got:
            self._began(asker)

    def _began(self, asker: Asker) -> None:
        assert asker.lease is not None
        slot = asker.lease.slot
        assert slot.model.key == asker.model
        assert slot.may_serve
        assert slot.pause_left == 0
        assert slot.active <= slot.limit.value
        self.under_way.append(asker)

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0), error=st.sampled_from([None, DOWN, BUSY, CancelledGenerationError(), RuntimeError()]))
    def give_back(self, which: int, error: BaseException | None) -> None:
        asker = self.under_way.pop(which % len(self.under_way))
        asker.end(error)
        if isinstance(error, BackendError):
            asker.may_repeat_at = self.clock() + 0.2
            self.waiting.append(asker)

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0))
    def try_again(self, which: int) -> None:
        asker = self.waiting[which % len(self.waiting)]
        tried = set(asker.attempts)
        if self.table.acquire(asker):
            self.waiting.remove(asker)
            self._began(asker)
            assert name_of(asker) not in tried or self.clock() >= asker.may_repeat_at

    @rule(seconds=st.floats(0, 20))
    def pass_(self, seconds: float) -> None:
        self.clock.pass_(seconds)

    @rule(which=st.integers(0, 2), state=st.sampled_from(["ready", "down", "stopped", "starting"]))
    def becomes(self, which: int, state: str) -> None:
        list(self.table.slots)[which].state = state  # type: ignore[assignment]

    @rule(which=st.integers(0, 2), value=st.integers(1, 6))
    def limited(self, which: int, value: int) -> None:
        list(self.table.slots)[which].limit = FixedLimit(value)

    @rule(which=st.integers(0, 2))
    def well_again(self, which: int) -> None:
        breaker = list(self.table.slots)[which].breaker
        if breaker.may_probe():
            breaker.succeeded()

    @invariant()
    def counts_hold(self) -> None:
        slots = list(self.table.slots)
        held = Counter(name_of(asker) for asker in self.under_way)
        assert {slot.name: slot.active for slot in slots if slot.active} == held
        assert self.table.active == len(self.under_way) <= 5
        assert all(count >= 0 for count in self.table._hosts.values())
        for model in "ab":
            assert (self.table.free(model) > 0) == self.table.has_free(model)


TestSlotsInUse = SlotsInUse.TestCase


@given(st.lists(st.integers(1, 300), min_size=1, max_size=5), st.integers(1, 400))
def test_every_slot_can_be_filled_and_no_further(capacities: list[int], most: int) -> None:
    slots = table(*capacities, max_threads=most)
    asked = 0
    while slots.acquire(Asker(key=str(asked))) and asked < 2000:
        asked += 1
    assert asked == min(sum(capacities), most)


def test_a_slot_says_what_it_is_when_nothing_is_said_of_it() -> None:
    model = Model("")
    slot = Slot(model, "engine", ScriptedEngine())
    model.slots.append(slot)
    assert (slot.backend, slot.is_here, model.name) == ("vllm", True, "scripted")
    assert (model.state, slot.will_serve, slot.is_free) == ("stopped", True, False)
