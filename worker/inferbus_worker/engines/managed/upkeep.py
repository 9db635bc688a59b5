"""Where the keeper of our own servers meets the slots and the queue."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from inferbus_worker.engines.managed.engine import ManagedEngine
from inferbus_worker.engines.managed.keeper import Keeper
from inferbus_worker.engines.managed.memory import MemoryBudget
from inferbus_worker.engines.slot import Slot, SlotState
from inferbus_worker.engines.slots import SlotTable

_STATES: Mapping[str, SlotState] = {
    "stopped": "stopped",
    "starting": "starting",
    "ready": "ready",
    "failed": "down",
}


def make_keeper(
    table: SlotTable, managed: Mapping[str, ManagedEngine], budget: MemoryBudget, queued: Callable[[str], int]
) -> Keeper:
    """The keeper of these engines' servers; their slots follow what becomes of them.

    Args:
        table: the slots.
        managed: the engines, by slot.
        budget: which may run.
        queued: how many requests wait for a model, by its key.
    """
    slots = {slot.name: slot for slot in table.slots if slot.name in managed}

    following = threading.Lock()  # else one that saw an older state might write it last

    def changed(name: str) -> None:
        with following:
            _follow(slots[name], managed[name])

    keeper = Keeper(budget, managed, _Demand(table, slots, queued), changed)
    for name, slot in slots.items():
        slot.is_open = _opening(keeper, name)
        if budget.stays(name):
            slot.state = "starting"  # as soon as the keeper looks: nobody has to ask for it, nor is the worker ready
    return keeper


def _opening(keeper: Keeper, name: str) -> Callable[[], bool]:
    return lambda: keeper.is_open(name)


def _follow(slot: Slot, engine: ManagedEngine) -> None:
    state = _STATES[engine.state]
    if state == "ready" and slot.state != "ready":
        slot.became_ready()
    else:
        slot.again_at = engine.again_at
        slot.state = state


class _Demand:
    """See `places.Demand`."""

    def __init__(self, table: SlotTable, slots: Mapping[str, Slot], queued: Callable[[str], int]) -> None:
        self._table = table
        self._slots = slots
        self._queued = queued

    def waiting(self, model: str) -> int:
        return 0 if self._table.has_free(model) else self._queued(model)

    def active(self, slot: str) -> int:
        return self._table.active_in(self._slots[slot])

    def used_at(self, slot: str) -> float:
        return self._slots[slot].last_used
