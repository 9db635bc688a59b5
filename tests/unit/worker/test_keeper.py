"""The keeper's thread, over servers that only pretend."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from inferbus_worker.engines.managed.keeper import Keeper
from inferbus_worker.engines.managed.life import State
from inferbus_worker.engines.managed.memory import MemoryBudget
from inferbus_worker.engines.managed.places import Place
from support.waiting import PATIENCE, until


class Pretended:
    """See `keeper.Kept`. Its stop takes as long as a test lets it."""

    def __init__(self) -> None:
        self.state: State = "stopped"
        self.memory_after_load: int | None = None
        self.changed: Callable[[], None] = lambda: None
        self.may_end = threading.Event()
        self.may_end.set()
        self.begun = 0
        self.stops: list[float] = []

    def begin(self) -> None:
        self.begun += 1
        self.is_("starting")

    def stop(self, timeout: float) -> None:
        self.stops.append(timeout)
        self.may_end.wait(timeout)
        self.is_("stopped")

    def is_(self, state: State) -> None:
        self.state = state
        self.changed()


class Table:
    """Who has which request: as the slot table would, under one lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.queued: Counter[str] = Counter()
        self.leased: Counter[str] = Counter()
        self.used: dict[str, float] = {}
        self.fails = False

    def waiting(self, model: str) -> int:
        if self.fails:
            raise ValueError(model)
        return self.queued[model]

    def active(self, slot: str) -> int:
        with self.lock:
            return self.leased[slot]

    def used_at(self, slot: str) -> float:
        return self.used.get(slot, 0.0)


class Host:
    def __init__(self, total: int | None, slots: str, **fields: object) -> None:
        more = {"memory": 10, "at_once": 1, "stays": False, "idle_stop": 600.0, **fields}
        places = [Place(slot=slot, model=slot, **more) for slot in slots]  # type: ignore[arg-type]
        self.engines = {slot: Pretended() for slot in slots}
        self.table = Table()
        self.changes: list[str] = []
        self.keeper = Keeper(MemoryBudget(total, places), self.engines, self.table, self.changes.append)
        self.keeper.start()

    def up(self, slot: str) -> None:
        until(lambda: self.engines[slot].state == "starting")
        self.engines[slot].is_("ready")
        until(lambda: self.keeper.is_open(slot))


HostOf = Callable[..., Host]


@pytest.fixture
def host() -> Iterator[HostOf]:
    with ExitStack() as running:

        def host(total: int | None, slots: str, **fields: object) -> Host:
            one = Host(total, slots, **fields)
            running.callback(one.keeper.stop, 5)
            return one

        yield host
    until(lambda: not any(thread.name.startswith("slot-") for thread in threading.enumerate()))


def test_it_starts_what_is_asked_for_and_tells_when_it_is_open(host: HostOf) -> None:
    one = host(20, "ab")
    one.table.queued["a"] = 1
    one.keeper.wake()
    until(lambda: one.engines["a"].state == "starting")
    assert one.keeper.is_starting("a")
    assert not one.keeper.is_open("a")
    one.up("a")
    assert "a" in one.changes
    assert not one.keeper.is_starting("a")
    assert one.engines["b"].begun == 0


def test_what_always_runs_is_started_with_it(host: HostOf) -> None:
    one = host(20, "ab", stays=True)
    until(lambda: all(engine.begun == 1 for engine in one.engines.values()))


def test_a_stop_that_takes_its_time_holds_up_nobody_but_its_successor(host: HostOf) -> None:
    one = host(20, "abc")
    for slot in "ab":
        one.table.queued[slot] = 1
        one.up(slot)
        one.table.queued[slot] = 0
    one.table.used = {"a": 1.0, "b": 2.0}
    one.engines["a"].may_end.clear()
    one.table.queued["c"] = 1
    until(lambda: one.engines["a"].stops)
    assert not one.keeper.is_open("a")
    assert one.keeper.is_starting("c"), "it waits in line"
    assert one.keeper.is_open("b")
    assert one.engines["c"].begun == 0
    one.engines["a"].may_end.set()
    one.up("c")
    assert one.engines["b"].stops == []


def test_a_stop_ends_all_servers_at_once(host: HostOf) -> None:
    one = host(None, "abcd", stays=True)
    for slot in "abcd":
        one.up(slot)
        one.engines[slot].may_end.clear()
    stopping = threading.Thread(target=one.keeper.stop, args=(2 * PATIENCE,))
    stopping.start()
    until(lambda: all(len(engine.stops) == 1 for engine in one.engines.values()))  # while none has come to its end
    for engine in one.engines.values():
        engine.may_end.set()
    stopping.join()


def test_a_look_that_fails_is_not_the_last(host: HostOf, caplog: pytest.LogCaptureFixture) -> None:
    one = host(20, "a")
    one.table.queued["a"] = 1
    one.table.fails = True
    until(lambda: "the keeper of the servers failed" in caplog.text)
    one.table.fails = False
    one.up("a")
