"""How the worker scales on an engine that costs nothing: over sessions, sizes, histories and projects."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from . import bus
from .dialects import Text
from .figures import Scaling, Section, Spread
from .plan import Plan
from .processes import broker, simulated_worker

_START_SECONDS: Final = 60.0
_REQUESTS: Final = 10_000
_SESSIONS: Final = 64
_MESSAGE: Final = 100
#: What a message of that length and its echo count in a history.
_TURN_TOKENS: Final = 50
_FIGURES: Final[Mapping[str, tuple[Callable[[bus.Run], float], int]]] = {
    "requests/s": (lambda run: run.per_second, 0),
    "p50 (ms)": (lambda run: run.median_ms, 2),
    "p99 (ms)": (lambda run: run.p99_ms, 2),
    "CPU per request (µs)": (lambda run: run.cpu_us, 0),
}


@dataclass(frozen=True, slots=True)
class _Point:
    """One worker, and the load on it.

    Attributes:
        at: where on the axis.
        options: of the worker.
        requests: of the measured run.
        warm_up: requests before it, in the same sessions; 0: a few.
        load: as for `ClosedLoop`.
    """

    at: int
    options: Sequence[str] = ()
    requests: int = _REQUESTS
    length: int = _MESSAGE
    warm_up: int = 0
    load: Mapping[str, Any] = field(default_factory=lambda: {"sessions": _SESSIONS})


@dataclass(frozen=True, slots=True)
class _Axis:
    """What grows, and how the document tells of it."""

    setting: str
    over: str
    method: str
    points: Sequence[_Point]


def _over_sessions(sessions: int) -> _Point:
    # One more than it takes by itself would make room for another at every turn; on a slow machine all of them wait.
    options = ("--max-sessions", "2000", "--queue-size", "4000")
    return _Point(sessions, options, min(_REQUESTS, 2_000 * sessions), load={"sessions": sessions})


def _over_sizes(length: int) -> _Point:
    return _Point(length, requests=_REQUESTS if length < 10_000 else 2_000, length=length)


def _over_histories(tokens: int) -> _Point:
    filled = _SESSIONS * (tokens // _TURN_TOKENS + 1)
    return _Point(tokens, ("--max-history-tokens", str(tokens)), warm_up=filled)


def _over_projects(count: int) -> _Point:
    projects = [f"project-{number}" for number in range(count)]
    options = [option for project in projects for option in ("--project", project)]
    return _Point(count, options, load={"sessions": 200, "projects": projects})


_AXES: Final = (
    _Axis(
        "1: sessions",
        "concurrent sessions",
        "Each session has one request under way.",
        [_over_sessions(sessions) for sessions in (1, 4, 16, 64, 256, 1_024)],
    ),
    _Axis(
        "2: sizes",
        "bytes of a message, and of its answer",
        f"{_SESSIONS} sessions. A message and its answer are one word to the engine, however long.",
        [_over_sizes(length) for length in (100, 1_000, 4_000, 16_000, 64_000)],
    ),
    _Axis(
        "3: histories",
        "tokens of the longest history",
        f"{_SESSIONS} sessions, whose histories have grown to `--max-history-tokens` before, and are cut as they are "
        "at work: in large steps.",
        [_over_histories(tokens) for tokens in (0, 300, 1_000, 2_000, 3_000)],
    ),
    _Axis(
        "4: projects",
        "projects of one worker",
        "200 sessions, dealt to the projects in turns.",
        [_over_projects(count) for count in (1, 10, 50, 200)],
    ),
)


def measure(plan: Plan) -> list[Section]:
    """Requests/s, latencies and CPU time at every point of every axis; each has a fresh worker.

    Raises:
        ProcessFailedError: broker or worker does not come up.
        TimeoutError: an answer did not come.
        ValueError: an answer was not what was asked for.
    """
    found: dict[str, list[list[bus.Run]]] = {axis.setting: [[] for _ in axis.points] for axis in _AXES}
    for _ in plan.rounds_of("curves"):
        for axis in _AXES:
            for point, runs in zip(axis.points, found[axis.setting], strict=True):
                runs.append(_run(plan, point))
                plan.say(f"{axis.over}, {point.at:,}: {runs[-1].per_second:,.0f}/s, {runs[-1].cpu_us:,.0f} µs of CPU")
    return [_section(axis, found[axis.setting]) for axis in _AXES]


def _run(plan: Plan, point: _Point) -> bus.Run:
    with broker() as port, simulated_worker(port, *point.options) as worker:
        worker.wait_for("ready:", _START_SECONDS)
        load = {**point.load, "name": f"{time.monotonic_ns():x}"}
        requests = max(2 * load["sessions"], plan.scaled(point.requests))
        return bus.run(port, worker, requests, lambda: Text(point.length), warm_up=point.warm_up, **load)


def _section(axis: _Axis, found: Sequence[Sequence[bus.Run]]) -> Section:
    figures = {name: [Spread.of(map(figure, runs)) for runs in found] for name, (figure, _) in _FIGURES.items()}
    return Section(
        suite="curves",
        setting=axis.setting,
        title=f"Scaling over {axis.over}",
        method=[
            (
                f"`inferbus serve --engine simulated` with no delay. Closed loop, plain text of {_MESSAGE} bytes where "
                "nothing else is said, QoS 0, histories on; a fresh worker for each row."
            ),
            axis.method,
        ],
        header=[axis.over, *_FIGURES],
        rows=[
            [
                f"{point.at:,}",
                *(figures[name][place].text(digits) for name, (_, digits) in _FIGURES.items()),
            ]
            for place, point in enumerate(axis.points)
        ],
        scaling=Scaling(over=axis.over, points=[point.at for point in axis.points], figures=figures),
    )
