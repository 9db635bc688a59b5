"""The real engine: what the bus costs it, whole answers and streamed ones."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from .engine_sections import STREAMED, WHOLE, engine_section, streaming_section
from .figures import Section
from .model import Model, prepare
from .plan import Plan
from .runs import Run, Runs
from .sides import SIDES, Side, Way

_REQUESTS_PER_SESSION: Final = {1: 200, 8: 100, 64: 40, 256: 20, 512: 8, 1_000: 5}
_FEWEST: Final = 3
#: Answers of two ways differ in length by less than this share.
_OTHER_LENGTH: Final = 0.02

WAYS: Final[Mapping[str, tuple[Way, ...]]] = {
    "engine": WHOLE,
    "streaming": (Way.BUS, *STREAMED),
}


def measure(plan: Plan, suites: Collection[str]) -> list[Section]:
    """One engine at a time; each round goes through all sides, another one first.

    Raises:
        ProcessFailedError: an engine does not come up.
        TimeoutError: an answer did not come.
    """
    wanted = {way for suite in suites for way in WAYS[suite]}
    with tempfile.TemporaryDirectory(prefix="inferbus-bench-") as folder:
        model = prepare(plan, Path(folder))
        runs = rounds(plan, model, wanted)
    makers = {"engine": engine_section, "streaming": streaming_section}
    return [makers[suite](runs, plan.levels, model) for suite in WAYS if suite in suites]


def rounds(plan: Plan, model: Model, wanted: Collection[Way]) -> Runs:
    """These ways at every level of the plan. See `measure` for what it raises."""
    runs: Runs = defaultdict(list)
    for number in plan.rounds_of("engine"):
        for kind in plan.turned([side for side in SIDES if not set(side.ways).isdisjoint(wanted)], number):
            with kind(model, max(plan.levels)) as side:
                for level in plan.levels:
                    for way in plan.turned([way for way in side.ways if way in wanted], number):
                        runs[way, level].append(_run(plan, side, way, level))
                        _compare_lengths(runs, way, level)
    return runs


def _compare_lengths(runs: Runs, way: Way, level: int) -> None:
    """Whoever says less has less to do: every way is asked the same, and has to say as much as the first one."""
    first = next(runs[other, level][0].outcome for other, at in runs if at == level)
    said, asked = (outcome.tokens / outcome.ended for outcome in (runs[way, level][-1].outcome, first))
    if abs(said / asked - 1) > _OTHER_LENGTH:
        raise ValueError(f"an answer is {said:.2f} tokens {way.value}, {asked:.2f} the first way that was measured")


def _run(plan: Plan, side: Side, way: Way, level: int) -> Run:
    side.run(way, level, 2 * level)  # to warm up
    each = _REQUESTS_PER_SESSION.get(level, 20)
    requests = level * max(_FEWEST, plan.scaled(each)) if level > 1 else plan.scaled(each)
    used, front = side.child.cpu_seconds, side.child.own_cpu_seconds
    outcome = side.run(way, level, requests)
    used, front = side.child.cpu_seconds - used, side.child.own_cpu_seconds - front
    if failed := outcome.failed + requests - outcome.ended:
        raise ValueError(f"{failed} requests failed {way.value}")
    plan.say(f"{level} sessions, {way.value}: {outcome.per_second:.1f}/s, {outcome.tokens_per_second:.0f} tokens/s")
    return Run(outcome, used / requests * 1e3, front / requests * 1e3)
