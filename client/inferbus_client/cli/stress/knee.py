"""Finds how many requests at once are worth it: doubles them until that brings no more, then looks around the knee."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from inferbus_client.cli.stress.result import Result

#: Less gain than this is noise, and so is less of a share of failures.
_NOISE: Final = 0.05
#: Of the best throughput, so much is as good as all of it.
_AS_GOOD: Final = 0.95
#: The first token may take so many times what it takes alone; a few milliseconds more are noise.
_SLOWER: Final = 2.0
_FIRST_TOKEN_NOISE: Final = 0.02
#: Doublings that must have brought nothing, one after the other: a single one may have had bad luck.
_IN_VAIN: Final = 2
_MOST_BETWEEN: Final = 5
#: Seconds after which no further step begins.
_LONGEST: Final = 600.0


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What came of it.

    Attributes:
        concurrency: how many at once; None where nothing was measured that tells.
        rule: the sentence that chose it.
        remarks: what hides a part of the curve.
    """

    concurrency: int | None
    rule: str
    remarks: Sequence[str] = ()


class Search:
    """Says which number of requests at once is to be measured next.

    Args:
        most: never more than that.
        clock: monotonic seconds.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._ends = clock() + _LONGEST
        self._rises = True
        self._in_vain = 0
        self._between = 0
        self._is_late = False

    def next(self, results: Sequence[Result]) -> int | None:
        """After these, in the order in which they were measured; None: it is enough."""
        if not results:
            return 1
        if results[-1].refused.get("rate_limited"):
            return None  # each further step would find the same limit, and use up what others may have of it
        found = self._up(results) if self._rises else None
        if found is None:
            self._rises = False
            found = self._next_to_the_knee(results)
        if found is not None and self._clock() >= self._ends:
            self._is_late = True
            return None
        return found

    def recommend(self, results: Sequence[Result]) -> Recommendation:
        """What the steps come to."""
        levels = _usable(results)
        remarks = [*_hidden(results), *(["It took 10 minutes; no further step was begun."] if self._is_late else [])]
        if not levels or (self._rises and _is_limited(results[-1])):
            return Recommendation(None, "No recommendation: too little was answered to tell.", remarks)
        best = max(level.throughput for level in _prompt(levels))
        rule = f"the least at once that reaches {_AS_GOOD:.0%} of the best throughput ({best:.3g} requests/s)"
        if levels[0].first_token.p95 is not None:
            rule += f", with the first token (p95) within {_SLOWER:g}x of what it takes alone"
        chosen = _knee(levels).plan.clients
        if chosen == self._most == max(level.plan.clients for level in levels):
            remarks.append("It is the most that was tried: more may be better still.")
        return Recommendation(chosen, f"{rule}.", remarks)

    def _up(self, results: Sequence[Result]) -> int | None:
        last, earlier = results[-1], _usable(results[:-1])
        if _is_spoilt(last):
            return None
        gains = not earlier or last.throughput > max(level.throughput for level in earlier) * (1 + _NOISE)
        self._in_vain = 0 if gains else self._in_vain + 1
        more = min(last.plan.clients * 2, self._most)
        return more if self._in_vain < _IN_VAIN and more > last.plan.clients else None

    def _next_to_the_knee(self, results: Sequence[Result]) -> int | None:
        levels = _usable(results)
        if not levels or self._between >= _MOST_BETWEEN:
            return None
        knee = _knee(levels)
        here = knee.plan.clients
        tried = sorted(result.plan.clients for result in results)
        gap = max(here // 8, 1)
        for low, high in pairwise(tried):
            worth_it = high == here or (low == here and _may_gain(knee, results, high))
            if worth_it and high - low > gap:
                self._between += 1
                return (low + high) // 2
        return None


def _may_gain(knee: Result, results: Sequence[Result], clients: int) -> bool:
    """Whether there may be a better one between the knee and this: it does more, but too slowly, or it fails."""
    (higher,) = [result for result in results if result.plan.clients == clients]
    return _is_spoilt(higher) or higher.throughput > knee.throughput * (1 + _NOISE)


def _usable(results: Sequence[Result]) -> list[Result]:
    return sorted((result for result in results if not _is_spoilt(result)), key=lambda result: result.plan.clients)


def _is_spoilt(result: Result) -> bool:
    return not result.answered or result.failed_share > _NOISE or _is_limited(result)


def _is_limited(result: Result) -> bool:
    return bool(result.refused.get("rate_limited"))


def _prompt(levels: Sequence[Result]) -> list[Result]:
    """Those whose first token comes in time; the least of all is its own measure."""
    alone = levels[0].first_token.p95
    if alone is None:
        return list(levels)
    most = max(alone * _SLOWER, alone + _FIRST_TOKEN_NOISE)
    return [level for level in levels if level.first_token.p95 is None or level.first_token.p95 <= most]


def _knee(levels: Sequence[Result]) -> Result:
    prompt = _prompt(levels)
    best = max(level.throughput for level in prompt)
    return next(level for level in prompt if level.throughput >= best * _AS_GOOD)


def _hidden(results: Sequence[Result]) -> list[str]:
    """Why a part of the curve cannot be seen."""
    remarks = []
    for result in sorted(results, key=lambda result: result.plan.clients):
        if refused := result.refused.get("rate_limited"):
            remarks.append(
                f"The worker's rate limit hides the curve from {result.plan.clients} at once on: it refused {refused} "
                f"of {result.sent} requests. A worker that is started without it shows the rest."
            )
        elif _is_spoilt(result):
            codes = {**result.refused, **result.failed, **({"lost": result.lost} if result.lost else {})}
            said = ", ".join(f"{code} {number}" for code, number in sorted(codes.items()))
            remarks.append(f"With {result.plan.clients} at once too many were not answered ({said or 'nothing came'}).")
    return remarks
