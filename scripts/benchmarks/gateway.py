"""Streams through the gateway, beside the same streams over the bus."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from sys import executable
from typing import Final

from . import closed_loop, http_load
from .dialects import Json
from .figures import Ratio, Section, Spread, ratios
from .outcome import Outcome, percentile
from .plan import Plan
from .processes import Child, broker, free_port, simulated_worker, worker

_STREAMS: Final = (64, 256)
_REQUESTS: Final = 2_000
#: Of each answer, and how fast a simulated engine generates them.
_TOKENS: Final = 32
_PER_TOKEN: Final = "20ms"  # noqa: S105 - a duration
_START_SECONDS: Final = 200.0
_GOAL: Final = 0.8
_SIDES: Final = ("bus", "gateway")
_ENGINES: Final = {"simulated": "simulated engine, 50 tokens/s a stream", "vllm": "vLLM with the demo model"}


@dataclass(frozen=True, slots=True)
class _Run:
    per_second: float
    first_ms: float
    cpu_ms: float


_Found = dict[tuple[int, str], list[_Run]]


def measure(plan: Plan) -> list[Section]:
    """Requests per second and time to the first delta of 64 and 256 streams, on both engines.

    Raises:
        ProcessFailedError: broker, worker or gateway does not come up.
        TimeoutError: an answer did not come.
    """
    return [_section(engine, _measured(plan, engine)) for engine in _ENGINES]


def _measured(plan: Plan, engine: str) -> _Found:
    found: _Found = defaultdict(list)
    with _serving(engine) as (port, http, gateway):
        for number in plan.rounds_of(f"gateway, {engine}"):
            for streams in _STREAMS:
                for side in plan.turned(_SIDES, number):
                    _load(side, port, http, streams, streams)  # to warm up
                    before = gateway.cpu_seconds
                    requests = plan.scaled(_REQUESTS)
                    outcome = _load(side, port, http, streams, requests)
                    if outcome.failed:
                        raise ValueError(f"{outcome.failed} answers of the {side} are not what was asked for")
                    cpu_ms = (gateway.cpu_seconds - before) / requests * 1e3
                    run = _Run(outcome.per_second, percentile(outcome.firsts, 0.5) * 1e3, cpu_ms)
                    found[streams, side].append(run)
                    plan.say(f"{streams} streams, {side}: {run.per_second:,.0f}/s, first delta {run.first_ms:.0f} ms")
    return found


@contextmanager
def _serving(engine: str) -> Iterator[tuple[int, int, Child]]:
    """A broker, a worker and a gateway: the ports of the first and the last, and the gateway itself."""
    most = str(_STREAMS[-1])
    options = ("--workers", most, "--max-workers", most, "--max-history-tokens", "0")
    http = free_port()
    with broker() as port:
        serving = (
            simulated_worker(port, *options, "--simulated-per-token", _PER_TOKEN, "--simulated-capacity", most)
            if engine == "simulated"
            else worker(port, "demo", *options)
        )
        program = str(Path(executable).with_name("inferbus"))
        listening = ["--broker", f"mqtt://127.0.0.1:{port}", "--listen", str(http)]
        with serving:
            serving.wait_for("ready:", _START_SECONDS)
            with Child([program, "gateway", *listening]) as gateway:
                gateway.wait_for("it has general", _START_SECONDS)
                yield port, http, gateway


def _load(side: str, port: int, http: int, streams: int, requests: int) -> Outcome:
    if side == "bus":
        dialect = Json(stream=True, max_tokens=_TOKENS)
        return closed_loop.run(port, sessions=streams, requests=requests, dialect=dialect)
    load = {"model": "general", "sessions": streams, "requests": requests, "max_tokens": _TOKENS}
    return http_load.run(http, stream=True, salted=False, **load)


def _section(engine: str, found: _Found) -> Section:
    goals = [goal for streams in _STREAMS for goal in _ratios(engine, streams, found)]
    return Section(
        suite="gateway",
        setting=engine,
        title=f"Streams through the gateway, {_ENGINES[engine]}",
        method=[
            (
                "`inferbus gateway` in front of one worker on one Mosquitto, beside JSON streams to the same worker "
                f"over the bus. At most {_TOKENS} tokens an answer; all of it, load generators too, on the same cores."
            ),
            (
                f"The simulated engine says what it was told, the first token at once, and each more {_PER_TOKEN} "
                "later. Whoever has an answer sends the next message at once: they all begin in the same moment."
            ),
            "CPU time is the gateway's own, per request.",
        ],
        header=["streams", "side", "requests/s", "first delta, median (ms)", "gateway's CPU per request (ms)"],
        rows=[_row(streams, side, found[streams, side]) for streams in _STREAMS for side in _SIDES],
        verdicts=[
            goal.verdict(f"{goal.label}: at {'most' if goal.at_most else 'least'} {goal.goal:g}") for goal in goals
        ],
        ratios=goals,
    )


def _ratios(engine: str, streams: int, found: _Found) -> list[Ratio]:
    bus, gateway = (found[streams, side] for side in _SIDES)
    rates = ratios([run.per_second for run in gateway], [run.per_second for run in bus])
    firsts = ratios([run.first_ms for run in bus], [run.first_ms for run in gateway])
    what = f"{_ENGINES[engine]}, {streams} streams"
    return [
        Ratio(label=f"{what}: requests/s through the gateway / over the bus", spread=rates, goal=_GOAL),
        Ratio(label=f"{what}: time to the first delta, bus / gateway", spread=firsts, goal=_GOAL),
    ]


def _row(streams: int, side: str, runs: Sequence[_Run]) -> list[str]:
    return [
        str(streams),
        "over the bus" if side == "bus" else "through the gateway",
        Spread.of(run.per_second for run in runs).text(0),
        Spread.of(run.first_ms for run in runs).text(0),
        "" if side == "bus" else Spread.of(run.cpu_ms for run in runs).text(2),
    ]
