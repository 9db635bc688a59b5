"""What the budget of memory speaks of: the slots that may be started, what is asked for, and what is to be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from inferbus_client.errors import SettingsError
from inferbus_client.units import format_size
from inferbus_worker.engines.managed.commands import concurrency_of
from inferbus_worker.settings.models import ModelSettings, SlotRange


@dataclass(frozen=True)
class Place:
    """A slot whose server the worker starts.

    Attributes:
        slot: its name, of which there is one.
        model: how its model is called.
        memory: bytes that it is said to take; None: nobody said.
        at_once: how many requests it takes at once.
        stays: whether it always runs, as those of `when: always` and the least number of a range do.
        idle_stop: seconds without a request after which it is stopped, unless it stays.
    """

    slot: str
    model: str
    memory: int | None
    at_once: int
    stays: bool
    idle_stop: float


class Demand(Protocol):
    """What is asked for; the slot table and the queue know. Asked in the keeper's thread, and never waits for long."""

    def waiting(self, model: str) -> int:
        """How many requests for the model wait, which no slot can take now."""
        ...

    def active(self, slot: str) -> int:
        """How many requests the slot has."""
        ...

    def used_at(self, slot: str) -> float:
        """When a request last began or ended there, on `time.monotonic()`'s clock; 0 where none has."""
        ...


class Plan(NamedTuple):
    """What is to be done now.

    Attributes:
        start: slots to start.
        stop: slots to stop, and why, for the log.
        closed: slots that must get no more requests, since they have to make way.
        waits: models that want a server and get none yet, and why.
    """

    start: list[str]
    stop: dict[str, str]
    closed: set[str]
    waits: dict[str, str]


def places_of(name: str, model: ModelSettings) -> list[Place | None]:
    """A place for each of the model's slots, in their order; None for those that the worker does not start.

    A single slot is called as its model; several have their number behind it: `phi-1`, `phi-2`.
    """
    least = model.slots.min if isinstance(model.slots, SlotRange) else None
    settings = model.places
    return [
        Place(
            name if len(settings) == 1 and least is None else f"{name}-{number}",
            name,
            slot.memory,
            concurrency_of(slot),
            slot.when == "always" if least is None else number <= least,
            slot.idle_stop,
        )
        if slot.is_managed
        else None
        for number, slot in enumerate(settings, 1)
    ]


def check_places(total: int | None, places: Sequence[Place]) -> None:
    """That each may have its turn in `total` bytes; None: in as many as there are.

    Raises:
        SettingsError: a model could never fit beside those that always run, or nobody said what it takes.
    """
    if total is None:
        return
    for place in places:
        if place.memory is None:
            raise SettingsError(
                f"models.{place.model}: memory_budget needs to know what it takes: say memory, such as 6 GiB "
                "(inferbus estimate reckons it)"
            )
    staying = sum(place.memory or 0 for place in places if place.stays)
    if staying > total:
        names = ", ".join(dict.fromkeys(place.model for place in places if place.stays))
        raise SettingsError(
            f"models that always run ({names}) take {format_size(staying)} together, and memory_budget is "
            f"{format_size(total)}: raise it, or start some of them on-demand"
        )
    for place in places:
        if not place.stays and (place.memory or 0) + staying > total:
            beside = f" beside the {format_size(staying)} of those that always run" if staying else ""
            raise SettingsError(
                f"models.{place.model}: it takes {format_size(place.memory or 0)}, which never fits into the "
                f"memory_budget of {format_size(total)}{beside}"
            )
