"""The columns that are told of workers and slots, with their meanings: `inferbus status` and the page have the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from inferbus_client.contract.presence import SlotStats
from inferbus_client.fleet.figures import Figures

_KIB: Final = 1024
#: What a slot tells of its failures that has a column of its own.
_APART: Final = ("429", "503")
_Of = TypeVar("_Of")


@dataclass(frozen=True, slots=True)
class Column(Generic[_Of]):
    """One of them.

    Attributes:
        name: its head.
        meaning: what stands there, for who does not know.
        cell: how it is written; `-` is what is not known.
    """

    name: str
    meaning: str
    cell: Callable[[_Of], str]


def of(number: int, most: int | None) -> str:
    return str(number) if most is None else f"{number}/{most}"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"  # noqa: PLR2004


def milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}ms" if value < 1000 else f"{value / 1000:.1f}s"  # noqa: PLR2004


def size(value: int | None) -> str:
    """Bytes, in two digits or more of the largest unit that has them."""
    if value is None:
        return "-"
    for unit in ("B", "KiB", "MiB"):
        if value < _KIB:
            return f"{value:.3g}{unit}"
        value /= _KIB  # type: ignore[assignment]
    return f"{value:.2g}GiB" if value < 10 else f"{value:.0f}GiB"  # noqa: PLR2004


#: Of a worker, or of several together.
WORKER_COLUMNS: Final[tuple[Column[Figures], ...]] = (
    Column("active", "requests in the engine now, of at most so many", lambda one: of(one.active, one.capacity)),
    Column(
        "queue",
        "requests that wait now, of at most so many; a group's queue is told of once",
        lambda one: of(one.queued, one.queue_size if one.group is None else None),
    ),
    Column("req/s", "requests that end in a second", lambda one: number(one.requests_per_s)),
    Column("tok/s", "tokens that are generated in a second", lambda one: number(one.tokens_per_s)),
    Column("p50", "half of the requests took at most so long", lambda one: milliseconds(one.p50)),
    Column("p95", "19 of 20 did", lambda one: milliseconds(one.p95)),
    Column("p99", "99 of 100 did", lambda one: milliseconds(one.p99)),
    Column("errors", "requests refused or failed since the start", lambda one: str(one.errors)),
)

#: Of a slot: one place that serves a model.
SLOT_COLUMNS: Final[tuple[Column[SlotStats], ...]] = (
    Column("active", "requests that it runs now, of at most so many", lambda slot: of(slot.active, slot.limit)),
    Column("memory", "what it has taken", lambda slot: size(slot.memory_measured)),
    Column("declared", "what it should take, by the configuration", lambda slot: size(slot.memory_declared)),
    Column("requests", "attempts that have ended since the start", lambda slot: str(slot.requests)),
    Column(
        "errors",
        "attempts that failed in other ways than the next two",
        lambda slot: str(sum(count for kind, count in slot.errors.items() if kind not in _APART)),
    ),
    Column("429", "attempts that its server refused as too many", lambda slot: str(slot.errors.get("429", 0))),
    Column("503", "attempts that its server had no room for", lambda slot: str(slot.errors.get("503", 0))),
    Column("retries", "attempts that were not a request's first", lambda slot: str(slot.retries)),
    Column("wait", "how long a request waited for it, on the average", lambda slot: milliseconds(slot.wait_ms)),
    Column("p50", "half of the attempts took at most so long", lambda slot: milliseconds(slot.latency_ms.p50)),
    Column("p95", "19 of 20 did", lambda slot: milliseconds(slot.latency_ms.p95)),
    Column("p99", "99 of 100 did", lambda slot: milliseconds(slot.latency_ms.p99)),
    Column("first", "half of the first tokens took so long at most", lambda slot: milliseconds(slot.first_token_ms)),
)

#: What a slot's or a model's state means where it is no good one.
STATE_MEANINGS: Final = {
    "unavailable": "none of its slots can answer",
    "down": "its start has failed, or its server is gone; it is tried again",
    "open": "it is left alone since it has failed, and tried again with one token",
    "half-open": "it has failed, and is being tried with one token",
    "dead": "it serves no more until the worker is started again",
}
