"""One thread that sees to it that the servers run which are asked for, as far as memory allows."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from inferbus_worker.engines.managed.life import State
from inferbus_worker.engines.managed.memory import MemoryBudget
from inferbus_worker.engines.managed.places import Demand

#: Seconds between looks, unless it is woken.
_TICK: Final = 0.1
#: Seconds that a server has to end which has no requests any more.
_STOP_TIMEOUT: Final = 20.0

log = logging.getLogger("inferbus.managed")


class Kept(Protocol):
    """What the keeper starts and stops: a `ManagedEngine`."""

    changed: Callable[[], None]

    @property
    def state(self) -> State:
        """What its server is doing."""
        ...

    @property
    def memory_after_load(self) -> int | None:
        """What the server took when it was loaded, in bytes."""
        ...

    def begin(self) -> None:
        """Have it started; returns at once."""
        ...

    def stop(self, timeout: float) -> None:
        """End it within `timeout` seconds; it waits."""
        ...


class Keeper:
    """The thread `slot-keeper`. It decides and never waits: each start and each stop has a thread of its own.

    Args:
        budget: who may run; asked in the keeper's thread alone, but for `is_open`.
        engines: what it is about, by slot.
        demand: what is asked for.
        changed: told, in any of these threads, that a slot is ready, or open, or no more so; notes and never waits.
    """

    def __init__(
        self,
        budget: MemoryBudget,
        engines: Mapping[str, Kept],
        demand: Demand,
        changed: Callable[[str], None] = lambda _slot: None,
    ) -> None:
        self._budget = budget
        self._engines = engines
        self._demand = demand
        self._changed = changed
        self._leaving: dict[str, threading.Thread] = {}
        self._open: set[str] = set()
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="slot-keeper", daemon=True)
        #: Which models want a server and get none yet, and why.
        self.waits: Mapping[str, str] = {}
        for slot, engine in engines.items():
            engine.changed = lambda slot=slot: self._note(slot)  # type: ignore[misc]

    def start(self) -> None:
        """Begin; servers that always run are started now."""
        self._thread.start()

    def wake(self) -> None:
        """Something is asked for, or has ended: look now. Safe from any thread."""
        self._wake.set()

    def is_open(self, slot: str) -> bool:
        """Whether the slot may be given a request; to be asked under the lock that `Demand.active` is counted under."""
        return self._engines[slot].state == "ready" and self._budget.is_open(slot)

    def is_starting(self, model: str) -> bool:
        """Whether a start for the model is under way, or it waits in line for one: its requests need patience."""
        return model in self.waits or self._budget.is_starting(model)

    def stop(self, timeout: float) -> None:
        """End the thread and, at the same time, every server. Safe to call twice."""
        deadline = time.monotonic() + timeout
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        stops = [self._in_thread(slot, max(0.0, deadline - time.monotonic())) for slot in self._engines]
        for thread in [*self._leaving.values(), *stops]:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _note(self, slot: str) -> None:
        self._wake.set()
        self._changed(slot)

    def _in_thread(self, slot: str, timeout: float) -> threading.Thread:
        thread = threading.Thread(
            target=self._engines[slot].stop, args=(timeout,), name=f"slot-stop {slot}", daemon=True
        )
        thread.start()
        return thread

    # From here on: its own thread.

    def _run(self) -> None:
        while not self._stopping:
            try:
                has_closed = self._look()
            except Exception:  # the servers that run go on, and the next look may see more
                log.exception("the keeper of the servers failed")
                has_closed = False
            # What was closed just now and has no request can be stopped as soon as that is sure.
            self._wake.wait(0 if has_closed else _TICK)
            self._wake.clear()

    def _look(self) -> bool:
        """One look at everything; returns whether a slot was closed by it."""
        for slot, engine in self._engines.items():
            thread = self._leaving.get(slot)
            if thread is None:
                self._budget.sees(slot, engine.state, engine.memory_after_load)
            elif not thread.is_alive():
                del self._leaving[slot]
                self._budget.gone(slot)
        plan = self._budget.plan(self._demand)
        for slot, why in plan.stop.items():
            log.info("slot %s is stopped: %s", slot, why)
            self._leaving[slot] = self._in_thread(slot, _STOP_TIMEOUT)
        for slot in plan.start:
            log.info("slot %s is started", slot)
            self._engines[slot].begin()
        self.waits = plan.waits
        now_open = {slot for slot in self._engines if self._budget.is_open(slot)}
        was_open, self._open = self._open, now_open
        for slot in was_open ^ now_open:
            self._changed(slot)
        return bool(was_open - now_open)
