"""The verdict of a sweep: does the engine batch, or does it queue?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from inferbus_client.cli.stress.result import Result

#: A change of less than this share of the time per request is noise.
_NOISE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the time per request does as concurrency grows.

    Attributes:
        kind: `batches`: it falls at every step. `partly`: it falls, but not at every step. `queues`: it does not fall;
            more requests at once only wait for each other. `unknown`: too little was answered.
        text: that in a sentence, with figures.
    """

    kind: Literal["batches", "partly", "queues", "unknown"]
    text: str


def judge(results: Sequence[Result]) -> Verdict:
    """The verdict over levels in rising order of concurrency."""
    levels = [(result.plan.clients, time) for result in results if (time := result.time_per_request) is not None]
    if len(levels) < max(len(results), 2):
        return Verdict("unknown", "No verdict: at least two levels need answers, and every level some.")
    times = [time for _, time in levels]
    figures = f"{_ms(times[0])} per request with {levels[0][0]} at once, {_ms(times[-1])} with {levels[-1][0]}"
    if all(after <= before * (1 - _NOISE) for before, after in pairwise(times)):
        return Verdict("batches", f"The engine batches: time per request falls at every step ({figures}).")
    best = times.index(min(times))
    if times[best] > times[0] * (1 - _NOISE):
        return Verdict("queues", f"Requests queue: time per request does not fall with concurrency ({figures}).")
    if best == len(times) - 1:
        return Verdict("partly", f"Time per request falls with concurrency, but not at every step ({figures}).")
    best_level = levels[best][0]
    return Verdict(
        "partly", f"The engine batches up to {best_level} at once; beyond, time per request falls no more ({figures})."
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
