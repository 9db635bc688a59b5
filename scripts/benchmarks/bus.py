"""The bus alone: the worker on an engine that costs nothing, beside a bare paho script on the same broker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from . import closed_loop
from .figures import Ratio, Section, Spread, Verdict, ratios
from .outcome import percentile
from .plan import Plan
from .processes import Child, broker, echo, simulated_worker

_REQUESTS: Final = {1: 3_000, 64: 20_000, 256: 20_000}
_START_SECONDS: Final = 30.0
_GOAL: Final = 0.8
_GOAL_MS: Final = 0.15


@dataclass(frozen=True, slots=True)
class _Run:
    per_second: float
    median_ms: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class _Pair:
    """The rounds of one level, both sides in step."""

    sessions: int
    echo: list[_Run]
    worker: list[_Run]

    def ratio(self) -> Spread:
        return ratios([run.per_second for run in self.worker], [run.per_second for run in self.echo])

    def added_ms(self) -> Spread:
        pairs = zip(self.worker, self.echo, strict=True)
        return Spread.of(worker.median_ms - echo.median_ms for worker, echo in pairs)


def measure(plan: Plan) -> list[Section]:
    """Requests per second, round trip and CPU time at 1, 64 and 256 sessions.

    Raises:
        ProcessFailedError: broker, echo or worker does not come up.
        TimeoutError: an answer did not come.
    """
    with broker() as port, echo(port) as yardstick, simulated_worker(port) as worker:
        yardstick.wait_for("ready", _START_SECONDS)
        worker.wait_for("ready:", _START_SECONDS)
        runs = _rounds(plan, port, {"echo": yardstick, "general": worker})
    return [_section([_Pair(sessions, *runs[sessions]) for sessions in _REQUESTS])]


def _rounds(plan: Plan, port: int, sides: dict[str, Child]) -> dict[int, tuple[list[_Run], list[_Run]]]:
    found: dict[tuple[int, str], list[_Run]] = defaultdict(list)
    for number in plan.rounds_of("bus"):
        for sessions, requests in _REQUESTS.items():
            for project in plan.turned(list(sides), number):
                run = _run(port, sides[project], project, sessions, plan.scaled(requests))
                found[sessions, project].append(run)
                plan.say(f"{sessions} sessions, {project}: {run.per_second:,.0f}/s, {run.cpu_us:,.0f} us of CPU")
    return {sessions: (found[sessions, "echo"], found[sessions, "general"]) for sessions in _REQUESTS}


def _run(port: int, side: Child, project: str, sessions: int, requests: int) -> _Run:
    closed_loop.run(port, sessions=sessions, requests=max(sessions, 50), project=project)  # to warm up
    before = side.cpu_seconds
    outcome = closed_loop.run(port, sessions=sessions, requests=requests, project=project)
    used = side.cpu_seconds - before
    if outcome.wrong:
        raise ValueError(f"{outcome.wrong} answers of {project} are not what was asked for")
    return _Run(outcome.per_second, percentile(outcome.round_trips, 0.5) * 1e3, used / requests * 1e6)


def _section(pairs: Sequence[_Pair]) -> Section:
    goals = [
        Ratio(label=f"bus, {pair.sessions} sessions: worker / echo, requests/s", spread=pair.ratio(), goal=_GOAL)
        for pair in pairs
        if pair.sessions > 1
    ]
    verdicts = [
        goal.verdict(f"Simulated engine: at least {_GOAL} of the echo's requests/s at {pair.sessions} sessions")
        for goal, pair in zip(goals, [pair for pair in pairs if pair.sessions > 1], strict=True)
    ]
    added = pairs[0].added_ms()
    verdicts.append(
        Verdict(
            goal=f"Simulated engine: median round trip at 1 session within {_GOAL_MS} ms of the echo's",
            figure=f"{added.text(3)} ms more",
            met=added.median <= _GOAL_MS,
        )
    )
    return Section(
        suite="bus",
        title="The bus alone",
        method=[
            (
                "`inferbus serve --engine simulated` with no delay, beside a bare paho script that sends every message "
                "back (`scripts/benchmarks/echo.py`), on one Mosquitto with its default settings."
            ),
            "Closed loop: each session sends its next message when it has the answer. QoS 0, plain text.",
            (
                "CPU time is the process's own, user and system, per request; it is what stays comparable on a machine "
                "that does other work."
            ),
        ],
        header=["sessions", "side", "requests/s", "worker / echo", "median round trip (ms)", "CPU per request (us)"],
        rows=[row for pair in pairs for row in _rows(pair)],
        verdicts=verdicts,
        ratios=goals,
    )


def _rows(pair: _Pair) -> list[list[str]]:
    def row(side: str, runs: Sequence[_Run], ratio: str) -> list[str]:
        rate = Spread.of(run.per_second for run in runs).text(0)
        trip = Spread.of(run.median_ms for run in runs).text(3)
        cpu = Spread.of(run.cpu_us for run in runs).text(0)
        return [str(pair.sessions), side, rate, ratio, trip, cpu]

    return [row("echo", pair.echo, ""), row("worker", pair.worker, pair.ratio().text())]
