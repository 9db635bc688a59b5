"""The tables of docs/fleet.md that the simulation writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from inferbus_client.units import format_duration

from . import measured
from .plan import Costs, Memory, Plan
from .run import Figures, simulate

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "fleet.md"
_BLOCK: Final = re.compile(r"(<!-- simulated: (?P<name>[^>]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
#: Of the store's time: above it whatever comes in bursts begins to wait for the store.
FULL: Final = 0.7
#: As scripts/bench measures it: 16 slots, answers of 100 ms, twice as many sessions as slots, none of which thinks.
_MEASURED: Final = (1, 2, 4, 8)
#: Workers, seconds an answer, sessions, seconds of thinking.
_SIZES: Final = (
    (1, 2.0, 1_000, 150.0),
    (4, 2.0, 10_000, 400.0),
    (16, 2.0, 100_000, 1_000.0),
    (100, 2.0, 1_000_000, 1_800.0),
    (100, 0.5, 1_000_000, 450.0),
)


def written(text: str) -> str:
    """The page with its blocks as the simulation has them now."""
    costs = costs_now()
    return _BLOCK.sub(lambda found: f"{found[1]}\n{_BLOCKS[found['name']](costs)}\n\n{found[4]}", text)


def described(plan: Plan, figures: Figures) -> str:
    """One run, for whoever reads it on a terminal."""
    rows = {
        "answers/s": f"{figures.rate:,.1f} of {plan.capacity:,.1f} that the slots can give",
        "slots busy": _share(figures.slots),
        "refused": _share(figures.refused),
        "wait for a slot": f"p50 {_ms(figures.wait_p50)}, p99 {_ms(figures.wait_p99)}",
        "Redis busy": f"{_share(figures.store)}, of which {_share(FULL)} is full",
        "wait for Redis": f"p99 {_ms(figures.store_p99)} a call",
        "Redis' memory": f"{_memory(plan.sessions, figures)}, for conversations of one turn",
    }
    return "\n".join(f"{name:16}{value}" for name, value in rows.items())


def costs_now() -> Costs:
    """As they were measured; as they are estimated where nobody has."""
    of_a_request = measured.seconds_of_a_request()
    return Costs() if of_a_request is None else Costs().as_measured(of_a_request)


def _against_measured(costs: Costs) -> str:
    rates = measured.rates()
    rows = []
    for workers in _MEASURED:
        figures = simulate(benchmark(workers, costs))
        linear = figures.rate / (workers * Plan(1).capacity)
        rows.append(
            [
                str(workers),
                f"{figures.rate:,.0f}",
                f"{linear:.2f}",
                _share(figures.store),
                rates.get(workers, "not yet"),
            ]
        )
    return _table(
        ["workers", "simulated requests/s", "of what the slots can do", "Redis busy", "measured requests/s"], rows
    )


def benchmark(workers: int, costs: Costs) -> Plan:
    """What scripts/bench does, with one processor for each of those that take part."""
    answers = 4_000 * workers
    return Plan(workers, is_steady=True, sessions=32 * workers, requests=answers, warm_up=answers // 8, costs=costs)


def _sizes(costs: Costs) -> str:
    rows = []
    for workers, answer, sessions, think in _SIZES:
        plan = Plan(
            workers, answer=answer, sessions=sessions, think=think, queue_size=10_000, requests=40_000, costs=costs
        )
        figures = simulate(plan)
        rows.append(
            [
                *(str(workers), format_duration(answer), f"{sessions:,}", format_duration(think)),
                *(f"{figures.rate:,.1f}", _share(figures.slots), _share(figures.store)),
                *(_ms(figures.wait_p50), _ms(figures.wait_p99), _memory(sessions, figures)),
            ]
        )
    header = ["workers", "an answer takes", "sessions", "each thinks", "requests/s", "slots busy", "Redis busy"]
    return _table([*header, "wait p50", "wait p99", "Redis' memory"], rows)


def _full(costs: Costs) -> str:
    """Where one store is full, by the utilisation law."""
    rate = FULL / costs.of_a_request
    rows = [
        [format_duration(answer), f"{rate:,.0f}", f"{rate * answer / 16 / 0.8:,.0f}"]
        for answer in (0.1, 0.5, 2.0, 10.0)
    ]
    return _table(["an answer takes", "requests/s", "workers of 16 slots, four fifths of them busy"], rows)


def _costs(costs: Costs) -> str:
    source = "estimated" if measured.seconds_of_a_request() is None else "measured"
    cells = [f"{name} {1e6 * cost:.0f}" for name, cost in costs._asdict().items()]
    return (
        f"A request costs {1e6 * costs.of_a_request:.0f} µs of Redis' processor ({source}); in µs: {', '.join(cells)}."
    )


def _memory(sessions: int, figures: Figures) -> str:
    memory = Memory()
    recent = figures.rate * 300  # --retry-memory
    size = sessions * (memory.session + memory.history) + recent * memory.recent
    return f"{size / 1e6:,.0f} MB" if size < 1e8 else f"{size / 1e9:.2f} GB"


def _share(value: float) -> str:
    return f"{value:.1%}" if value < 0.1 else f"{value:.0%}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.1f} ms"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(header)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


_BLOCKS: Final[Mapping[str, Callable[[Costs], str]]] = {
    "costs": _costs,
    "against measured": _against_measured,
    "sizes": _sizes,
    "full": _full,
}
