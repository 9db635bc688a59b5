"""Figures with their spread, and the section of the document that a suite makes of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Self

from pydantic import BaseModel


class Spread(BaseModel):
    """The rounds' median, and the lowest and highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        rounds = list(values)
        return cls(median=statistics.median(rounds), low=min(rounds), high=max(rounds))

    def text(self, digits: int = 2) -> str:
        if self.low == self.high:  # of one round, mostly: there is no spread
            return f"{self.median:,.{digits}f}"
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f} to {self.high:,.{digits}f})"


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Round by round, so that what disturbed a whole round cancels out.

    Raises:
        ValueError: there is nothing to divide by.
    """
    if not all(denominators):
        raise ValueError("too little was measured for a ratio: the clock of CPU time goes in steps of 10 ms")
    return Spread.of(above / below for above, below in zip(numerators, denominators, strict=True))


class Verdict(BaseModel):
    """A goal, the figure beside it, and whether it was met."""

    goal: str
    figure: str
    met: bool


class Ratio(BaseModel):
    """A ratio in the plot, with its goal: at least that, or at most."""

    label: str
    spread: Spread
    goal: float
    at_most: bool = False

    def verdict(self, goal: str) -> Verdict:
        met = self.spread.median <= self.goal if self.at_most else self.spread.median >= self.goal
        looks_met = not met and round(self.spread.median, 2) == self.goal
        return Verdict(goal=goal, figure=self.spread.text(3 if looks_met else 2), met=met)


class Curve(BaseModel):
    """Resident size over requests, for the plot."""

    requests: list[int]
    megabytes: list[float]


class Scaling(BaseModel):
    """Figures over something that grows, for the plot.

    Attributes:
        over: what grows.
        points: how far.
        figures: a spread for each point, by the figure's name.
    """

    over: str
    points: list[int]
    figures: dict[str, list[Spread]]


class Machine(BaseModel):
    """Where a figure was taken.

    Attributes:
        cache: of the second level, for each core: by it two hosts that call their processors the same are told apart.
    """

    cpu: str
    cores: int
    memory_gib: int
    cache: str = ""
    gpu: str | None
    versions: dict[str, str]
    commit: str


class Section(BaseModel):
    """One suite's part of the document.

    Attributes:
        suite: the suite's name on the command line.
        setting: what tells two runs of one suite apart, such as the model; empty where there is but one.
        method: how it was measured, one sentence a line.
        short: whether this was a smoke run, whose figures say nothing.
        command: what takes it again.
        call_ns: what calling a Python function that does nothing took when it began, in nanoseconds: by this, figures
            of one machine's fast and slow hours can be told apart. 0: it was not measured.
    """

    suite: str
    setting: str = ""
    title: str
    method: list[str]
    header: list[str]
    rows: list[list[str]]
    verdicts: list[Verdict] = []
    ratios: list[Ratio] = []
    curve: Curve | None = None
    scaling: Scaling | None = None
    rounds: int = 0
    short: bool = False
    taken: str = ""
    command: str = ""
    load: float = 0.0
    call_ns: float = 0.0
    machine: Machine | None = None
