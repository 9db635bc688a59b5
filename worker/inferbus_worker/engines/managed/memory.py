"""Which of the servers that the worker starts may run now: pure logic, without threads and processes.

They share the host's memory. Nothing is guessed: each model's need is declared, and what a server really took replaces
that once it is known to be more. (Less proves nothing: memory grows, and a GPU's is not seen.)

How it is fair. Models that want a server wait in one line, in the order in which they began to want it, and nobody
behind takes the memory that the first one waits for. Room is made by stopping those that have idled for longest, as few
as will do, and never a busy one. Where idle ones are not enough, the first in line still gets its turn: whoever has run
for `TERM` seconds gets no more requests, ends those it has, and goes. A server that has work is left alone for that
long, and no model makes way for the same other one twice in `TERM` seconds: two models that are asked in turns change
places at once the first time, and then once a minute, however they are asked. So whoever wants a server has it after
the terms, the requests under way and the starts of those before it in line.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from inferbus_worker.engines.managed.life import State
from inferbus_worker.engines.managed.places import Demand, Place, Plan, check_places

#: Seconds that a server with work waiting is left alone, and between a model's two departures for the same other one.
TERM: Final = 60.0


Phase = Literal["off", "starting", "ready", "failed", "leaving"]


@dataclass
class _Slot:
    place: Place
    phase: Phase = "off"
    since: float = 0.0  # when the phase began
    measured: int = 0

    @property
    def is_on(self) -> bool:
        return self.phase in ("starting", "ready", "failed")


@dataclass
class _Room:
    """Memory that is free, and that which will be when those that are leaving have gone."""

    free: float
    coming: float
    plan: Plan = field(default_factory=lambda: Plan([], {}, set(), {}))


class MemoryBudget:
    """Asked for a `plan` again and again; told with `sees` and `gone` what became of it.

    Args:
        total: bytes for all servers together; None: as many as there are.
        places: all that may ever be started.
        clock: monotonic seconds.

    Raises:
        SettingsError: a model could never fit beside those that always run, or nobody said what it takes.
    """

    def __init__(
        self, total: int | None, places: Sequence[Place], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        check_places(total, places)
        self._total = math.inf if total is None else total
        self._clock = clock
        self._slots = {place.slot: _Slot(place) for place in places}
        self._models = list(dict.fromkeys(place.model for place in places))
        self._staying = sum(place.memory or 0 for place in places if place.stays)
        self._wanted_since: dict[str, float] = {}
        self._made_way: dict[tuple[str, str], float] = {}  # who for whom, and when
        self._closed: set[str] = set()

    def stays(self, slot: str) -> bool:
        """Whether its server always runs."""
        return self._slots[slot].place.stays

    def sees(self, slot: str, state: State, measured: int | None) -> None:
        """What a slot's server is doing, and what it took when it was loaded."""
        it = self._slots[slot]
        it.measured = measured or it.measured
        if it.is_on and state != "stopped" and state != it.phase:  # noqa: PLR1714 - mypy follows this
            it.phase, it.since = state, self._clock()

    def gone(self, slot: str) -> None:
        """The server that was to stop has ended, and its memory is free."""
        self._slots[slot].phase = "off"

    def is_open(self, slot: str) -> bool:
        """Whether the slot may have more requests. Safe from any thread.

        Whoever gives it one asks this under the lock under which `Demand.active` is counted: then none is stopped that
        has just got a request.
        """
        return self._slots[slot].phase == "ready" and slot not in self._closed

    def is_starting(self, model: str) -> bool:
        """Whether one of the model's servers is on its way up. Safe from any thread."""
        return any(it.phase == "starting" for it in self._of(model))

    @property
    def held(self) -> int:
        """Bytes that are taken or promised, by what is known now."""
        return sum(self._need(it) for it in self._slots.values() if it.phase != "off" or it.place.stays)

    def plan(self, demand: Demand) -> Plan:
        """What is to be done now; it counts as begun."""
        now = self._clock()
        leaving = sum(self._need(it) for it in self._slots.values() if it.phase == "leaving")
        room = _Room(self._total - self.held, leaving)
        for it in self._slots.values():
            if it.place.stays and it.phase == "off":
                self._start(it, room.plan, now)
            elif self._has_idled(it, demand, now):
                self._send_away([it], demand, room, now, "nobody has asked for it")
        for model in self._in_line(demand, now):
            self._serve(model, demand, room, now)
        for model in self._models:
            self._grow(model, demand, room, now)
        self._closed = room.plan.closed
        return room.plan

    # --- who wants what ---

    def _of(self, model: str) -> list[_Slot]:
        return [it for it in self._slots.values() if it.place.model == model]

    def _need(self, it: _Slot) -> int:
        """What it takes. One that has outgrown the whole room may still run alone."""
        declared = it.place.memory or 0
        # Those that always run were counted, as declared, when it was checked that everybody may have a turn.
        if it.place.stays or math.isinf(self._total):
            return declared
        return max(declared, min(it.measured, int(self._total) - self._staying))

    def _in_line(self, demand: Demand, now: float) -> list[str]:
        """The models that have work and nobody for it, those first that have had for longest."""
        for model in self._models:
            is_served = any(it.phase in ("starting", "ready") for it in self._of(model))
            if demand.waiting(model) and not is_served and any(it.phase != "failed" for it in self._of(model)):
                self._wanted_since.setdefault(model, now)
            else:
                self._wanted_since.pop(model, None)
        return sorted(self._wanted_since, key=lambda model: self._wanted_since[model])

    def _serve(self, model: str, demand: Demand, room: _Room, now: float) -> None:
        """Start one of the model's slots, or make room for it, or keep the room that there will be."""
        off = [it for it in self._of(model) if it.phase == "off"]
        if not off:
            room.plan.waits[model] = "its last server is still stopping"
            return
        it = next((it for it in off if self._need(it) <= room.free), off[0])
        need = self._need(it)
        if need > room.free + room.coming:
            self._make_room(it, need - room.free - room.coming, demand, room, now)
        elif need <= room.free:
            room.free -= need
            self._start(it, room.plan, now)
            self._wanted_since.pop(model, None)
            return
        else:
            room.plan.waits[model] = "another server is stopping for it"
        # Nobody behind takes what it waits for.
        left = room.free + room.coming - need
        room.free, room.coming = max(0, min(room.free, left)), max(0, min(room.coming, left))

    def _make_room(self, wanted: _Slot, short: float, demand: Demand, room: _Room, now: float) -> None:
        model = wanted.place.model
        chosen = self._chosen(wanted, short, demand, room, now)
        if chosen is None:
            room.plan.waits[model] = "the others are busy, or have just been started"
            return
        if self._send_away(chosen, demand, room, now, f"it makes room for {model}"):
            self._made_way |= {(it.place.model, model): now for it in chosen}
        room.plan.waits[model] = "others end what they have under way, and make room for it"

    def _chosen(self, wanted: _Slot, short: float, demand: Demand, room: _Room, now: float) -> list[_Slot] | None:
        """Who makes way: the idle ones first, of these those used least recently, and no more than have to."""
        able = [
            it
            for it in self._slots.values()
            if it.place.slot not in room.plan.closed and self._may_leave(it, wanted, demand, now)
        ]
        able.sort(
            key=lambda it: (
                demand.active(it.place.slot) > 0,
                it.place.slot not in self._closed,
                demand.used_at(it.place.slot),
            )
        )
        chosen: list[_Slot] = []
        while able and sum(map(self._need, chosen)) < short:
            chosen.append(able.pop(0))
        spare = sum(map(self._need, chosen)) - short
        if spare < 0:
            return None
        for it in chosen[::-1]:
            if self._need(it) <= spare:
                chosen.remove(it)
                spare -= self._need(it)
        return chosen

    def _may_leave(self, it: _Slot, wanted: _Slot, demand: Demand, now: float) -> bool:
        if it.place.stays or it.phase not in ("ready", "failed") or it.place.model == wanted.place.model:
            return False
        made_way = self._made_way.get((it.place.model, wanted.place.model), -math.inf)
        has_work = demand.active(it.place.slot) or demand.waiting(it.place.model)
        has_had_its_term = it.phase == "failed" or now - it.since >= TERM
        return now - made_way >= TERM and (has_had_its_term or not has_work)

    def _grow(self, model: str, demand: Demand, room: _Room, now: float) -> None:
        """Start one more slot of a model whose running ones do not take all that waits, in memory that is free."""
        slots = self._of(model)
        serving = [it for it in slots if it.phase in ("starting", "ready") and it.place.slot not in room.plan.closed]
        off = next((it for it in slots if it.phase == "off" and self._need(it) <= room.free), None)
        if off is None or not serving or demand.waiting(model) <= sum(it.place.at_once for it in serving):
            return
        room.free -= self._need(off)
        self._start(off, room.plan, now)

    def _has_idled(self, it: _Slot, demand: Demand, now: float) -> bool:
        if it.place.stays or it.phase not in ("ready", "failed"):
            return False
        is_idle = not demand.active(it.place.slot) and not demand.waiting(it.place.model)
        return is_idle and now - max(it.since, demand.used_at(it.place.slot)) >= it.place.idle_stop

    # --- what is done about it ---

    @staticmethod
    def _start(it: _Slot, plan: Plan, now: float) -> None:
        it.phase, it.since = "starting", now
        plan.start.append(it.place.slot)

    def _send_away(self, slots: Sequence[_Slot], demand: Demand, room: _Room, now: float, why: str) -> bool:
        """Stop them, if all of them are idle, and were closed before: else one may just have got a request."""
        names = {it.place.slot for it in slots}
        room.coming += sum(map(self._need, slots))
        room.plan.closed.update(names)
        if not names <= self._closed or any(map(demand.active, names)):
            return False
        for it in slots:
            it.phase, it.since = "leaving", now
            room.plan.stop[it.place.slot] = why
        return True
