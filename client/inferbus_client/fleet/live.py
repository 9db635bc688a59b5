"""The bus as it is now and was in the last minutes: what the gateway's page shows, as plain values.

No clock and no connection of its own: whoever has them gives each second a look at the workers.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from inferbus_client.contract.presence import ModelStats
from inferbus_client.fleet.columns import SLOT_COLUMNS, STATE_MEANINGS, WORKER_COLUMNS
from inferbus_client.fleet.events import Events, named
from inferbus_client.fleet.figures import Figures, figures_of, together
from inferbus_client.fleet.groups import group_of, groups_of
from inferbus_client.fleet.troubles import SILENCE, Trouble, refused, troubles_of
from inferbus_client.fleet.watch import WorkerView

#: Looks that are kept: five minutes of seconds.
_KEPT: Final = 300
#: Workers that are shown and reckoned with, models and slots of all of them, projects, sentences.
_MOST_WORKERS: Final = 200
_MOST_SLOTS: Final = 400
_MOST_PROJECTS: Final = 30
_MOST_TROUBLES: Final = 50
#: Seconds that one who went without a word is a trouble.
_MOURNED: Final = 300.0


@dataclass(frozen=True, slots=True)
class Look:
    """What there is to see at one moment.

    Attributes:
        workers: what is known of them.
        is_up: whether the connection to the broker stands.
        at: in seconds since the Unix epoch.
        now: the same moment on the clock of `WorkerView.stats_at`.
        asked_since: since when the workers are asked for figures again and again, on that clock; None: they are not, so
            that old figures are nobody's fault.
    """

    workers: Mapping[str, WorkerView]
    is_up: bool
    at: float
    now: float
    asked_since: float | None = None

    def silence(self, view: WorkerView) -> float:
        """Seconds for which a worker has not answered."""
        if self.asked_since is None:
            return 0.0
        return self.now - max(self.asked_since, view.stats_at or 0.0)

    def is_old(self, view: WorkerView) -> bool:
        """Whether what is known of it is not of now."""
        return not self.is_up or self.silence(view) > SILENCE


class Live:
    """Remembers. Not for several threads at once."""

    def __init__(self) -> None:
        self._events = Events()
        self._moments: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._latest: dict[str, Any] = {}

    def tick(self, look: Look) -> dict[str, Any]:
        """What there is now: workers, sums, sentences, and what is new since the last look."""
        new = self._events.look(look.workers, is_up=look.is_up, now=look.at)
        chosen = _chosen(look.workers)
        figures = {name: figures_of(view) for name, view in chosen.items()}
        fresh = {name: one for name, one in figures.items() if one is not None and not look.is_old(chosen[name])}
        total = together(list(fresh.values())) if fresh else None
        moment = _moment(look, total, {name: chosen[name] for name in fresh})
        self._moments.append(moment)
        self._latest = {
            "isUp": look.is_up,
            "workers": list(_workers(look, chosen, figures)),
            "more": len(look.workers) - len(chosen),
            "total": None if total is None else _cells(total),
            "queues": _queues([chosen[name] for name in fresh]),
            "groups": [
                {"name": group.name, "summary": group.summary, "lines": list(group.lines())}
                for group in groups_of(chosen)
            ],
            "troubles": [asdict(one) for one in self._troubles(look, chosen)],
        }
        return {**self._latest, "moment": moment, "events": [asdict(event) for event in new]}

    def all(self) -> dict[str, Any]:
        """The same for who has seen nothing yet: with the last minutes, and what the columns mean."""
        return {
            **self._latest,
            "history": list(self._moments),
            "events": [asdict(event) for event in self._events.recent],
            "columns": [{"name": column.name, "meaning": column.meaning} for column in WORKER_COLUMNS],
            "slotColumns": [{"name": column.name, "meaning": column.meaning} for column in SLOT_COLUMNS],
            "meanings": STATE_MEANINGS,
        }

    def _troubles(self, look: Look, chosen: Mapping[str, WorkerView]) -> list[Trouble]:
        """Faults first."""
        if (lost_at := self._events.lost_at) is not None:
            seconds = look.at - lost_at
            words = f"The connection to the broker is lost for {seconds:.0f} s; what stands here was before."
            return [Trouble("fault", words)]
        found = []
        if losses := self._events.losses(look.at):
            words = f"The connection to the broker was lost {_times(losses)} in the last minute."
            found.append(Trouble("fault", words))
        if not look.workers:
            found.append(Trouble("note", "No worker has said anything on this broker."))
        for name, view in chosen.items():
            found += self._of_its_life(look, name, view)
            if not look.is_old(view):
                found += troubles_of(name, view)
        found.sort(key=lambda one: one.level != "fault")
        return found[:_MOST_TROUBLES]

    def _of_its_life(self, look: Look, name: str, view: WorkerView) -> Iterator[Trouble]:
        worker = named(name)
        if view.is_gone:
            went = self._events.went(name)
            if went is not None and not went[1] and look.at - went[0] <= _MOURNED:
                words = f"{worker} went without a word {look.at - went[0]:.0f} s ago: killed, or its connection broke."
                yield Trouble("fault", words)
            return
        if look.silence(view) > SILENCE:
            words = f"{worker} has not answered for {look.silence(view):.0f} s: it hangs, or its link is bad."
            yield Trouble("fault", words)
        if again := self._events.reconnections(name, look.at):
            words = f"The link of {worker} is bad: it lost the broker {_times(again)} in the last minute."
            yield Trouble("fault", words)
        if view.presence is not None and view.presence.state in {"loading", "draining"}:
            doing = "loads its model" if view.presence.state == "loading" else "finishes what it has, and takes no more"
            yield Trouble("note", f"{worker} {doing}.")


def _chosen(workers: Mapping[str, WorkerView]) -> dict[str, WorkerView]:
    """Those that are shown: who tells of himself before who has only been told of, who is there before who has gone."""
    if len(workers) <= _MOST_WORKERS:
        return dict(workers)
    ranked = sorted(workers, key=lambda name: (not workers[name].readings, workers[name].is_gone))
    return {name: workers[name] for name in sorted(ranked[:_MOST_WORKERS])}


def _moment(look: Look, total: Figures | None, fresh: Mapping[str, WorkerView]) -> dict[str, Any]:
    """A point of each plot; None is a gap, for what is not known is not 0."""
    moment: dict[str, Any] = {"at": round(look.at)}
    figures = total or Figures()
    for name, value in (
        ("requestsPerS", figures.requests_per_s),
        ("tokensPerS", figures.tokens_per_s),
        ("p50", figures.p50),
        ("p95", figures.p95),
        ("p99", figures.p99),
        ("active", None if total is None else total.active),
        ("queued", None if total is None else total.queued),
    ):
        moment[name] = round(value, 2) if value is not None and math.isfinite(value) else None
    return {**moment, "refused": None if total is None else _refused_per_s(fresh.values())}


def _refused_per_s(views: Iterable[WorkerView]) -> dict[str, float]:
    """Refusals a second of the last seconds, by code."""
    rates: defaultdict[str, float] = defaultdict(float)
    for view in views:
        first, last = view.readings[0], view.readings[-1]
        seconds = max(last.uptime_s - first.uptime_s, 1.0)
        for code, count in refused(first, last).items():
            rates[code] += count / seconds
    return {code: round(rate, 2) for code, rate in sorted(rates.items())}


def _queues(views: Sequence[WorkerView]) -> list[dict[str, Any]]:
    """How many wait in each project, of all workers together, the longest first."""
    waiting: Counter[str] = Counter()
    for view in views:
        if view.stats is not None:
            waiting.update(view.stats.queued_by_project)
    return [{"project": named(name), "queued": count} for name, count in waiting.most_common(_MOST_PROJECTS)]


def _workers(
    look: Look, chosen: Mapping[str, WorkerView], figures: Mapping[str, Figures | None]
) -> Iterator[dict[str, Any]]:
    room = _MOST_SLOTS
    for name, view in chosen.items():
        presence, one = view.presence, figures[name]
        models = list(_models(view, room))
        room -= sum(max(len(model["slots"]), 1) for model in models)
        yield {
            "name": named(name),
            "state": "unknown" if presence is None else presence.state,
            "since": None if presence is None or presence.since is None else round(look.at - presence.since),
            "model": "" if presence is None else named(presence.model or ""),
            "projects": [] if presence is None else [named(project) for project in presence.projects[:_MOST_PROJECTS]],
            "group": named(group_of(view) or ""),
            "isOld": not view.is_gone and look.is_old(view),
            "cells": None if one is None else _cells(one),
            "models": models,
        }


def _models(view: WorkerView, room: int) -> Iterator[dict[str, Any]]:
    if view.is_gone:
        return
    models = {} if view.stats is None else dict(view.stats.models)
    if view.presence is not None:
        for name, state in view.presence.models.items():
            models.setdefault(name, ModelStats(state=state))
    for name, model in models.items():
        slots = list(model.slots.items())[: max(room, 0)]
        room -= max(len(slots), 1)
        if room < 0:
            return
        yield {
            "name": named(name),
            "state": named(model.state),
            "queued": model.queued,
            "slots": [
                {
                    "name": named(slot_name),
                    "backend": named(slot.backend),
                    "state": named(slot.state),
                    "breaker": named(slot.breaker),
                    "active": slot.active,
                    "limit": slot.limit,
                    "cells": [column.cell(slot) for column in SLOT_COLUMNS],
                }
                for slot_name, slot in slots
            ],
        }


def _cells(figures: Figures) -> list[str]:
    return [column.cell(figures) for column in WORKER_COLUMNS]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
