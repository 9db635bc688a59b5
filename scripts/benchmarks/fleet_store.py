"""One worker with its state in memory, beside one with it in Redis."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Final

from . import closed_loop
from .dialects import Dialect, Json, Text
from .model import prepare
from .outcome import percentile
from .plan import Plan
from .processes import Child, broker, redis, simulated_worker
from .runs import Run as EngineRun
from .sides import BusSide, GroupSide, Side, Way

SIDES: Final = ("memory", "redis")
SESSIONS: Final = 64

_MAX_TOKENS: Final = 48
_START_SECONDS: Final = 60.0
#: On the engine, by its concurrent sessions.
_EACH: Final = {1: 150, 8: 60, 64: 25}
_FEWEST: Final = 3


class Kind(Enum):
    """Of load."""

    TEXT = auto()
    JSON = auto()
    ALONE = auto()


_REQUESTS: Final = {Kind.TEXT: 16_000, Kind.JSON: 12_000, Kind.ALONE: 2_000}


@dataclass(frozen=True, slots=True)
class Run:
    """One run. CPU times are microseconds a request; a worker that has no Redis has used none of its."""

    per_second: float
    median_ms: float
    cpu_us: float
    redis_us: float


Figure = Callable[[Run], float]
#: The rounds by side and load.
Found = dict[tuple[str, Kind], list[Run]]
#: The rounds by side and concurrent sessions.
OnEngine = dict[tuple[str, int], list[EngineRun]]


@dataclass(frozen=True, slots=True)
class _Served:
    """A side that is up: where, by whom, and what it keeps its state in."""

    port: int
    worker: Child
    store: Child | None

    @property
    def redis_seconds(self) -> float:
        return 0.0 if self.store is None else self.store.cpu_seconds


def simulated(plan: Plan) -> Found:
    """Both sides on an engine that costs nothing. See `fleet.measure` for what it raises."""
    found: Found = defaultdict(list)
    with ExitStack() as running:
        sides = {side: _serving(running, side) for side in SIDES}
        for served in sides.values():
            served.worker.wait_for('"ready:', _START_SECONDS)
        for number in plan.rounds_of("fleet, one worker"):
            for kind in Kind:
                for side in plan.turned(SIDES, number):
                    run = _run(plan, sides[side], kind)
                    found[side, kind].append(run)
                    plan.say(
                        f"{kind.name.lower()}, {side}: {run.per_second:,.0f}/s, median {run.median_ms:.2f} ms, "
                        f"{run.cpu_us:,.0f} µs of CPU and {run.redis_us:,.0f} of Redis'"
                    )
    return found


def _serving(running: ExitStack, side: str) -> _Served:
    port = running.enter_context(broker())
    if side == "memory":
        return _Served(port, running.enter_context(simulated_worker(port)), None)
    url, store = running.enter_context(redis())
    return _Served(port, running.enter_context(simulated_worker(port, "--state", url)), store)


def _run(plan: Plan, served: _Served, kind: Kind) -> Run:
    sessions, requests = (1 if kind is Kind.ALONE else SESSIONS), plan.scaled(_REQUESTS[kind])
    closed_loop.run(served.port, sessions=sessions, requests=max(sessions, 50), dialect=_dialect(kind))  # to warm up
    worker, store = served.worker.cpu_seconds, served.redis_seconds
    outcome = closed_loop.run(served.port, sessions=sessions, requests=requests, dialect=_dialect(kind))
    worker, store = served.worker.cpu_seconds - worker, served.redis_seconds - store
    if outcome.failed:
        raise ValueError(f"{outcome.failed} answers are not what was asked for")
    median = percentile(outcome.round_trips, 0.5) * 1e3
    return Run(outcome.per_second, median, worker / requests * 1e6, store / requests * 1e6)


def _dialect(kind: Kind) -> Dialect:
    if kind is Kind.JSON:
        return Json(stream=False, max_tokens=_MAX_TOKENS, name=f"{time.monotonic_ns():x}")
    return Text()


def on_engine(plan: Plan) -> OnEngine:
    """Both sides on vLLM. Both engines are up all the time, and one at a time is asked."""
    found: OnEngine = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="inferbus-bench-") as folder, ExitStack() as running:
        model, slots = prepare(plan, Path(folder)), max(plan.levels)
        kinds: dict[str, type[Side]] = dict(zip(SIDES, (BusSide, GroupSide), strict=True))
        sides = {side: running.enter_context(kind(model, slots)) for side, kind in kinds.items()}
        for number in plan.rounds_of("fleet, real engine"):
            for level in plan.levels:
                for side in plan.turned(SIDES, number):
                    found[side, level].append(_engine_run(plan, sides[side], level))
                    rate = found[side, level][-1].outcome.per_second
                    plan.say(f"{level} sessions on the real engine, {side}: {rate:.1f}/s")
    return found


def _engine_run(plan: Plan, side: Side, level: int) -> EngineRun:
    side.run(Way.BUS, level, 2 * level)  # to warm up
    each = max(_FEWEST, plan.scaled(_EACH.get(level, _FEWEST)))
    used, front = side.child.cpu_seconds, side.child.own_cpu_seconds
    outcome = side.run(Way.BUS, level, level * each)
    used, front = side.child.cpu_seconds - used, side.child.own_cpu_seconds - front
    if outcome.failed:
        raise ValueError(f"{outcome.failed} requests on the real engine failed")
    return EngineRun(outcome, used / (level * each) * 1e3, front / (level * each) * 1e3)
