"""What one run of a load gave."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field


@dataclass(slots=True)
class Trip:
    """One request on its way. Times are seconds on `time.perf_counter()`'s clock."""

    number: int
    began: float
    first: float | None = None
    last: float = 0.0
    gaps: list[float] = field(default_factory=list)
    tokens: int = 0
    refused: bool = False
    wrong: bool = False

    def delta(self) -> None:
        """Note that one has come."""
        now = time.perf_counter()
        if self.first is None:
            self.first = now
        else:
            self.gaps.append(now - self.last)
        self.last = now


@dataclass(slots=True)
class Outcome:
    """Times are seconds. Of streamed answers, `firsts` holds the times to the first delta, `gaps` those between two."""

    seconds: float = 0.0
    tokens: int = 0
    wrong: int = 0
    round_trips: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)

    def add(self, trip: Trip, ended: float) -> None:
        self.tokens += trip.tokens
        self.wrong += trip.wrong
        (self.refusals if trip.refused else self.round_trips).append(ended - trip.began)
        if trip.first is not None:
            self.firsts.append(trip.first - trip.began)
            self.gaps += trip.gaps

    @property
    def failed(self) -> int:
        """Answers that are not what was asked for: where nobody floods anything, a refusal is none either."""
        return self.wrong + len(self.refusals)

    @property
    def ended(self) -> int:
        return len(self.round_trips) + len(self.refusals)

    @property
    def per_second(self) -> float:
        return (len(self.round_trips) - self.wrong) / self.seconds

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Outcome:
        return cls(**json.loads(text))


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
