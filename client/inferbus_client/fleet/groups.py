"""The groups on a bus: workers that share one queue and the same conversations, as they tell of it themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from inferbus_client.contract.presence import GroupStats
from inferbus_client.exchange.announced import WorkerView
from inferbus_client.fleet.events import named
from inferbus_client.units import counted

#: That are told of, and names in one line. Anyone may announce a worker of any group.
MOST_GROUPS: Final = 20
MOST_MODELS: Final = 50
_NAMED: Final = 20
#: States of a model, by its worker's presence, in which it answers or will when it is asked.
_SERVED: Final = frozenset({"ready", "stopped", "starting"})


@dataclass(frozen=True, slots=True)
class Group:
    """One of them.

    Attributes:
        name: what it is called.
        workers: who is in it and has not gone, and the state of each.
        models: what is served, each by which of those that are ready.
        figures: what they share, as the latest says that reaches it; None where nobody has told.
        queue_size: how many requests may wait for any of them; None where that one does not tell.
        unreached: who does not reach what they share, and why.
    """

    name: str
    workers: Mapping[str, str]
    models: Mapping[str, tuple[str, ...]]
    figures: GroupStats | None
    queue_size: int | None
    unreached: Mapping[str, str]

    @property
    def summary(self) -> str:
        """Its figures in words."""
        told, here = self.figures, len(self.workers)
        if told is None:
            return counted(here, "worker")
        # Some may be on other brokers, and who died without a word counts in the store until it has missed some beats.
        known = "" if told.workers == here else f" here, {told.workers} by the store"
        most = "" if self.queue_size is None else f" of {self.queue_size}"
        words = f"{counted(here, 'worker')}{known}, {told.queued}{most} waiting, {told.leases} taken, "
        return words + counted(told.sessions, "conversation")

    def lines(self) -> Iterator[str]:
        """Who is in it, who serves what, and who is cut off."""
        words = [name if state == "ready" else f"{name} ({state})" for name, state in self.workers.items()]
        yield f"workers: {_listed(words)}"
        for model, workers in list(self.models.items())[:MOST_MODELS]:
            yield f"{model}: {_listed(workers)}"
        for worker, reason in list(self.unreached.items())[:_NAMED]:
            yield f"{worker} does not reach the store: {reason}"


def group_of(view: WorkerView) -> str | None:
    """Whose a worker is that has not gone; None where it shares with nobody."""
    return None if view.presence is None or view.is_gone else view.presence.group


def groups_of(workers: Mapping[str, WorkerView]) -> list[Group]:
    """Those that have workers, the largest first."""
    found: dict[str, dict[str, WorkerView]] = {}
    for name, view in workers.items():
        if (group := group_of(view)) is not None:
            found.setdefault(group, {})[name] = view
    largest = sorted(found.items(), key=lambda one: (-len(one[1]), one[0]))
    return [_group(name, members) for name, members in largest[:MOST_GROUPS]]


def _group(name: str, members: Mapping[str, WorkerView]) -> Group:
    told = {
        worker: view.stats.group
        for worker, view in members.items()
        if view.stats is not None and view.stats.group is not None and view.stats.group.name == name
    }
    reached = [worker for worker, figures in told.items() if figures.reached]
    latest = max(reached or told, key=lambda worker: members[worker].stats_at or 0.0, default=None)
    stats = None if latest is None else members[latest].stats
    models: dict[str, list[str]] = {}
    for worker, view in members.items():
        for model in _models(view):
            models.setdefault(named(model), []).append(named(worker))
    return Group(
        named(name),
        {named(worker): view.presence.state for worker, view in members.items() if view.presence is not None},
        {model: tuple(serving) for model, serving in sorted(models.items())},
        None if latest is None else told[latest],
        None if stats is None else stats.queue_size,
        {named(worker): named(one.reason or "") for worker, one in told.items() if not one.reached},
    )


def _models(view: WorkerView) -> list[str]:
    """What a worker serves now, by its own word."""
    presence = view.presence
    if presence is None or presence.state != "ready":
        return []
    if presence.models:
        return [model for model, state in presence.models.items() if state in _SERVED]
    return [] if presence.model is None else [presence.model]


def _listed(names: list[str] | tuple[str, ...]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
