"""Many workers: what it costs one to keep its state in Redis, how far several go, and how long a death is felt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import psutil

from inferbus_client.units import counted

from . import fleet_growth, fleet_store, fleet_takeover
from .figures import Ratio, Section, Spread, Verdict, ratios
from .fleet_growth import ANSWER_MS, SLOTS, Grown
from .fleet_store import SESSIONS, SIDES, Found, Kind
from .fleet_takeover import LEASE
from .plan import Plan
from .runs import Run as EngineRun
from .runs import per_second as rate_of

#: What `scripts/simulate-fleet` looks for.
REDIS: Final = "Redis' CPU per request (µs)"
RATE: Final = "requests/s"

_CPU_GOAL: Final = 2.5
_RATE_GOAL: Final = 0.95
_ADDED_GOAL_MS: Final = 1.0
_LINEAR_GOAL: Final = 0.95
#: Beyond the lease, until the first word of the second run.
_GAP_GOAL: Final = 2.0
#: Of all cores; what is left then is nobody's in particular.
_FULL: Final = 0.95
_KINDS: Final = {
    Kind.TEXT: f"{SESSIONS} sessions, text",
    Kind.JSON: f"{SESSIONS} sessions, JSON",
    Kind.ALONE: "1 session, text",
}


def measure(plan: Plan) -> list[Section]:
    """CPU time, latency and throughput of one worker in memory and in Redis; 1 to 8 workers; the gap of a take-over.

    Raises:
        ProcessFailedError: a broker, a Redis or a worker does not come up.
        TimeoutError: an answer did not come.
        ValueError: an answer was not what was asked for.
    """
    found = fleet_store.simulated(plan)
    engine = fleet_store.on_engine(plan)
    grown = fleet_growth.measure(plan)
    gaps = fleet_takeover.measure(plan)
    return [_one_worker(found, engine, plan.levels), _store(found, gaps), _workers(grown)]


# --- one worker ---


def _one_worker(found: Found, engine: fleet_store.OnEngine, levels: Sequence[int]) -> Section:
    cpu = {kind: _ratio(found, kind, lambda run: run.cpu_us) for kind in (Kind.TEXT, Kind.JSON)}
    costs = [
        Ratio(
            label=f"{_KINDS[kind]}: worker's CPU per request, Redis / memory",
            spread=spread,
            goal=_CPU_GOAL,
            at_most=True,
        )
        for kind, spread in cpu.items()
    ]
    rates = [
        Ratio(
            label=f"demo model, {counted(level, 'session')}: requests/s, Redis / memory",
            spread=ratios(*(list(map(rate_of, engine[side, level])) for side in reversed(SIDES))),
            goal=_RATE_GOAL,
        )
        for level in levels
    ]
    pairs = zip(found["memory", Kind.ALONE], found["redis", Kind.ALONE], strict=True)
    added = Spread.of(redis.median_ms - memory.median_ms for memory, redis in pairs)
    return Section(
        suite="fleet",
        setting="1: one worker",
        title="Many workers: one, its state in memory or in Redis",
        method=[
            (
                "`inferbus serve --engine simulated` with no delay and every setting as it comes, beside the same with "
                "`--state`; each has a Mosquitto of its own, the second a Redis that writes nothing to disk. In turns, "
                "all on the same cores."
            ),
            "Closed loop, QoS 0. Requests in JSON have ids, and so are remembered for their retries.",
            "The real engine is vLLM with the demo model, histories off; both are up, and one at a time is asked.",
        ],
        header=["load", "what", "in memory", "in Redis", "Redis / memory"],
        rows=[*_rows_of_one(found), *_rows_of_engine(engine, levels)],
        verdicts=[
            *(ratio.verdict(f"{ratio.label}: at most {_CPU_GOAL}") for ratio in costs),
            *(ratio.verdict(f"{ratio.label}: at least {_RATE_GOAL}") for ratio in rates),
            Verdict(
                goal=f"State in Redis: at most {_ADDED_GOAL_MS:g} ms more at the median of 1 session",
                figure=f"{added.text(2)} ms more",
                met=added.median <= _ADDED_GOAL_MS,
            ),
        ],
        ratios=[*costs, *rates],
    )


def _ratio(found: Found, kind: Kind, figure: fleet_store.Figure) -> Spread:
    return ratios(*([figure(run) for run in found[side, kind]] for side in reversed(SIDES)))


def _rows_of_one(found: Found) -> list[list[str]]:
    figures: Mapping[str, tuple[fleet_store.Figure, int]] = {
        "worker's CPU per request (µs)": (lambda run: run.cpu_us, 0),
        RATE: (lambda run: run.per_second, 0),
        "median round trip (ms)": (lambda run: run.median_ms, 3),
    }
    rows = []
    for kind, load in _KINDS.items():
        for what, (figure, digits) in figures.items():
            memory, redis = (Spread.of(map(figure, found[side, kind])).text(digits) for side in SIDES)
            rows.append([load, what, memory, redis, _ratio(found, kind, figure).text()])
    return rows


def _rows_of_engine(engine: fleet_store.OnEngine, levels: Sequence[int]) -> list[list[str]]:
    figures: Mapping[str, Callable[[EngineRun], float]] = {
        RATE: rate_of,
        "worker's and engine's CPU per request (ms)": lambda run: run.cpu_ms,
    }
    rows = []
    for level in levels:
        for what, figure in figures.items():
            memory, redis = ([figure(run) for run in engine[side, level]] for side in SIDES)
            load = f"{counted(level, 'session')}, demo model"
            rows.append([load, what, Spread.of(memory).text(1), Spread.of(redis).text(1), ratios(redis, memory).text()])
    return rows


# --- the store, and a death ---


def _store(found: Found, gaps: Sequence[Sequence[float]]) -> Section:
    def used(kind: Kind) -> str:
        return Spread.of(run.redis_us for run in found["redis", kind]).text(0)

    worst = Spread.of(map(max, gaps))
    return Section(
        suite="fleet",
        setting="2: store",
        title="Many workers: the store, and a death",
        method=[
            "Redis' CPU time is its process's own, in the rounds above; what has arrived together goes in one call.",
            (
                f"A take-over: two workers of {fleet_takeover.SLOTS} slots have as many requests of "
                f"{fleet_takeover.ANSWER:g} s each; one gets SIGKILL; `--lease {LEASE:g}s`, as it comes. The time is "
                f"that from the kill to the first reply of each request's second run; {len(gaps)} rounds."
            ),
        ],
        header=["what", "figure"],
        rows=[
            [REDIS, used(Kind.TEXT)],
            ["Redis' CPU per request in JSON (µs)", used(Kind.JSON)],
            ["Redis' CPU per request, one at a time (µs)", used(Kind.ALONE)],
            ["taken over after, first of them (s)", Spread.of(map(min, gaps)).text(1)],
            ["taken over after, last of them (s)", worst.text(1)],
        ],
        verdicts=[
            Verdict(
                goal=f"A request of a killed worker is begun anew within the lease and {_GAP_GOAL:g} s",
                figure=f"{worst.high:.1f} s at most, lease {LEASE:g} s",
                met=worst.high <= LEASE + _GAP_GOAL,
            )
        ],
    )


# --- several workers ---


def _workers(grown: Mapping[int, Sequence[Grown]]) -> Section:
    cores = psutil.cpu_count() or 1
    linear = {count: _linear(grown, count) for count in grown}
    goals = [
        Ratio(label=f"{count} workers: requests/s / {count} x that of one", spread=linear[count], goal=_LINEAR_GOAL)
        for count, runs in grown.items()
        if count > 1 and Spread.of(run.machine for run in runs).median < _FULL * cores
    ]
    return Section(
        suite="fleet",
        setting="3: workers",
        title="Many workers: 1 to 8",
        method=[
            (
                f"Simulated engine, {SLOTS} slots a worker, {ANSWER_MS} ms an answer: {SLOTS * 1000 // ANSWER_MS} "
                "requests/s is all that one can do. Closed loop, text, twice as many sessions as slots; a round begins "
                "with one worker, and others join its group."
            ),
            (
                f"Cores in use are those of the processes, and of all that runs on the machine, of {cores}. The load "
                f"and the broker are in the latter. Where that is over {_FULL:.0%} of them there is no goal."
            ),
        ],
        header=[
            "workers",
            RATE,
            "of linear",
            "workers (cores)",
            "Redis (cores)",
            "machine (cores)",
            "median answer (ms)",
            "refused",
        ],
        rows=[_row_of(count, runs, linear[count]) for count, runs in grown.items()],
        verdicts=[ratio.verdict(f"{ratio.label}: at least {_LINEAR_GOAL}") for ratio in goals],
        ratios=goals,
    )


def _linear(grown: Mapping[int, Sequence[Grown]], count: int) -> Spread:
    return ratios([run.per_second for run in grown[count]], [count * run.per_second for run in grown[1]])


def _row_of(count: int, runs: Sequence[Grown], linear: Spread) -> list[str]:
    return [
        counted(count, "worker"),
        Spread.of(run.per_second for run in runs).text(0),
        "" if count == 1 else linear.text(),
        Spread.of(run.workers for run in runs).text(),
        Spread.of(run.redis for run in runs).text(),
        Spread.of(run.machine for run in runs).text(),
        Spread.of(run.median_ms for run in runs).text(0),
        str(sum(run.refused for run in runs)),
    ]
