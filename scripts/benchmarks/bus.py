"""The bus alone: the worker on an engine that costs nothing, beside an echo on the same broker, in three dialects."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from inferbus_client.units import counted

from . import closed_loop
from .commits import exported
from .dialects import Dialect, Oldest, OurClient, Text
from .figures import Ratio, Section, Spread, Verdict, ratios
from .outcome import percentile
from .plan import Plan
from .processes import Child, broker, echo, simulated_worker

_REQUESTS: Final = {1: 3_000, 64: 20_000, 256: 20_000}
_START_SECONDS: Final = 30.0
_GOAL_MS: Final = 0.15
#: Whose network loop the echo uses, so that what makes ours faster does not move the yardstick.
_FROZEN: Final = "b06416e"


@dataclass(frozen=True, slots=True)
class Spoken:
    """A dialect of the suite.

    Attributes:
        title: for the document.
        echo: what `echo.py` calls it.
        dialect: makes one; none speaks in two runs.
        goals: the share of the echo's requests per second, by concurrent sessions.
    """

    title: str
    echo: str
    dialect: Callable[[], Dialect]
    goals: Mapping[int, float]


def _name() -> str:
    return f"{time.monotonic_ns():x}"


SPOKEN: Final = (
    Spoken("plain text", "text", Text, {64: 0.8, 256: 0.8}),
    Spoken("JSON with ids", "oldest", lambda: Oldest(_name()), {64: 0.75}),
    Spoken("our client's JSON", "client_half", lambda: OurClient(_name()), {64: 0.75}),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One closed loop; `cpu_us` is the side's own CPU time, per request."""

    per_second: float
    median_ms: float
    p99_ms: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class _Pair:
    """The rounds of one dialect and level, both sides in step."""

    spoken: Spoken
    sessions: int
    echo: list[Run]
    worker: list[Run]

    @property
    def what(self) -> str:
        return f"{self.spoken.title}, {counted(self.sessions, 'session')}"

    def ratio(self, figure: Callable[[Run], float]) -> Spread:
        return ratios(list(map(figure, self.worker)), list(map(figure, self.echo)))

    def added_ms(self) -> Spread:
        pairs = zip(self.worker, self.echo, strict=True)
        return Spread.of(worker.median_ms - echo.median_ms for worker, echo in pairs)


def measure(plan: Plan) -> list[Section]:
    """Requests per second, round trip and CPU time at 1, 64 and 256 sessions.

    Raises:
        NoSuchCommitError: this checkout does not have the commit where the echo was frozen.
        ProcessFailedError: broker, echo or worker does not come up.
        TimeoutError: an answer did not come.
    """
    with ExitStack() as running:
        tree = running.enter_context(exported(_FROZEN, "client"))
        port = running.enter_context(broker())
        echoes = {spoken.echo: running.enter_context(echo(port, spoken.echo, tree)) for spoken in SPOKEN}
        worker = running.enter_context(simulated_worker(port))
        for yardstick in echoes.values():
            yardstick.wait_for("ready", _START_SECONDS)
        worker.wait_for("ready:", _START_SECONDS)
        pairs = [_Pair(spoken, sessions, [], []) for spoken in SPOKEN for sessions in _REQUESTS]
        for number in plan.rounds_of("bus"):
            for pair in pairs:
                _take(plan, port, pair, number, echoes[pair.spoken.echo], worker)
    return [_section(pairs)]


def _take(plan: Plan, port: int, pair: _Pair, number: int, yardstick: Child, worker: Child) -> None:
    """One round of both sides."""
    requests = plan.scaled(_REQUESTS[pair.sessions])
    sides = [
        (f"echo-{pair.spoken.echo}", yardstick, pair.echo),
        ("general", worker, pair.worker),
    ]
    for project, side, found in plan.turned(sides, number):
        load: dict[str, Any] = {"sessions": pair.sessions, "project": project}
        found.append(run(port, side, requests, pair.spoken.dialect, **load))
        plan.say(f"{pair.what}, {project}: {found[-1].per_second:,.0f}/s, {found[-1].cpu_us:,.0f} µs of CPU")


def run(port: int, side: Child, requests: int, dialect: Callable[[], Dialect], *, warm_up: int = 0, **load: Any) -> Run:
    """One closed loop on one side, after a short one (or one of `warm_up` requests); `load` as for `ClosedLoop`.

    Raises:
        TimeoutError: an answer did not come.
        ValueError: an answer was not what was asked for.
    """
    closed_loop.run(port, requests=warm_up or max(load["sessions"], 50), dialect=dialect(), **load)
    before = side.cpu_seconds
    outcome = closed_loop.run(port, requests=requests, dialect=dialect(), **load)
    used = side.cpu_seconds - before
    if outcome.failed:
        raise ValueError(f"{outcome.failed} answers are not what was asked for")
    median, p99 = (percentile(outcome.round_trips, share) * 1e3 for share in (0.5, 0.99))
    return Run(outcome.per_second, median, p99, used / requests * 1e6)


def _section(pairs: Sequence[_Pair]) -> Section:
    goals = [
        (Ratio(label=f"{pair.what}: worker / echo, requests/s", spread=pair.ratio(_per_second), goal=goal), pair)
        for pair in pairs
        if (goal := pair.spoken.goals.get(pair.sessions)) is not None
    ]
    return Section(
        suite="bus",
        title="The bus alone",
        method=[
            (
                "`inferbus serve --engine simulated` with no delay and histories as they come, beside a program that "
                "sends every message back (`scripts/benchmarks/echo.py`), on one Mosquitto with its default settings."
            ),
            (
                f"The echo uses the network loop of our client as of commit {_FROZEN}, which takes far less CPU time "
                "than paho's own, and `json` alone; it parses and writes the same JSON, and as many messages, as the "
                "worker."
            ),
            (
                "JSON with ids is what the oldest clients send (`sessionId`, `message`, `replyTopic`, `clientId`, "
                "`requestId`), and plain text comes back. Our client's JSON also says `reply` and `deadlineMs`; "
                "`accepted` and `done` come back."
            ),
            "Closed loop: each session sends its next message when it has the answer. QoS 0.",
            (
                "CPU time is the process's own, user and system, per request; it is what stays comparable on a machine "
                "that does other work."
            ),
        ],
        header=[
            *("dialect", "sessions", "side", "requests/s", "worker / echo", "median round trip (ms)"),
            *("CPU per request (µs)", "CPU, worker / echo"),
        ],
        rows=[row for pair in pairs for row in _rows(pair)],
        verdicts=[
            *(
                ratio.verdict(f"Simulated engine, {pair.what}: at least {ratio.goal} of the echo's requests/s")
                for ratio, pair in goals
            ),
            *(_soon(pair) for pair in pairs if pair.sessions == 1),
        ],
        ratios=[ratio for ratio, _ in goals],
    )


def _soon(pair: _Pair) -> Verdict:
    added = pair.added_ms()
    return Verdict(
        goal=f"Simulated engine, {pair.what}: median round trip within {_GOAL_MS} ms of the echo's",
        figure=f"{added.text(3)} ms more",
        met=added.median <= _GOAL_MS,
    )


def _rows(pair: _Pair) -> Iterator[list[str]]:
    for side, runs in (("echo", pair.echo), ("worker", pair.worker)):
        is_ours = side == "worker"
        yield [
            pair.spoken.title,
            str(pair.sessions),
            side,
            Spread.of(map(_per_second, runs)).text(0),
            pair.ratio(_per_second).text() if is_ours else "",
            Spread.of(run.median_ms for run in runs).text(3),
            Spread.of(map(_cpu_us, runs)).text(0),
            pair.ratio(_cpu_us).text() if is_ours else "",
        ]


def _per_second(run: Run) -> float:
    return run.per_second


def _cpu_us(run: Run) -> float:
    return run.cpu_us
