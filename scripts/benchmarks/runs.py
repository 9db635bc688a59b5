"""What the engine's suites found, by way and level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .figures import Spread, ratios
from .outcome import Outcome, percentile
from .sides import Way


@dataclass(frozen=True, slots=True)
class Run:
    """One run's outcome, and the CPU milliseconds a request that the side's processes used for it.

    `front_ms` is the part of the process that takes the requests in, without those of the engine that it has started.
    """

    outcome: Outcome
    cpu_ms: float
    front_ms: float

    @property
    def first_ms(self) -> float:
        """The median time to the first delta."""
        return percentile(self.outcome.firsts, 0.5) * 1e3

    @property
    def first_p99_ms(self) -> float:
        return percentile(self.outcome.firsts, 0.99) * 1e3

    def gap_ms(self, share: float) -> float:
        """Between two deltas of one answer."""
        return percentile(self.outcome.gaps, share) * 1e3

    @property
    def whole_ms(self) -> float:
        """The median time to the whole answer."""
        return percentile(self.outcome.round_trips, 0.5) * 1e3


#: The rounds of every way at every level.
Runs = dict[tuple[Way, int], list[Run]]


def spread(runs: list[Run], figure: Callable[[Run], float]) -> Spread:
    return Spread.of(map(figure, runs))


def per_second(run: Run) -> float:
    return run.outcome.per_second


def front_ms(run: Run) -> float:
    return run.front_ms


def faster(runs: Runs, way: Way, other: Way, level: int) -> Spread:
    """Requests per second of one way over another's, round by round."""
    return compared(runs, way, other, level, per_second)


def compared(runs: Runs, way: Way, other: Way, level: int, figure: Callable[[Run], float]) -> Spread:
    """A figure of one way over another's, round by round."""
    return ratios([figure(run) for run in runs[way, level]], [figure(run) for run in runs[other, level]])
