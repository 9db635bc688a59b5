"""Many streams at once: how soon and how evenly they come, and what they cost, beside a bare asyncio publisher."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from . import engine
from .engine_sections import STREAMED, many_streams_section
from .figures import Ratio, Section, Spread, Verdict, ratios
from .model import prepare
from .mqtt import Connection
from .outcome import Outcome, Trip, percentile
from .plan import Plan
from .processes import Child, broker, simulated_worker

_STREAMS: Final = (64, 256, 512, 1_000)
_ON_ENGINE: Final = 256
_SECONDS: Final = 8.0
_PER_TOKEN: Final = 0.02
#: What comes within `--delta-interval`, as it comes: the next token after 50 ms.
_TOKENS_PER_DELTA: Final = 3
#: Streams begin one after the other, within this time.
_RAMP: Final = 1.0
_START_SECONDS: Final = 30.0
_GOAL_CORES: Final = 0.5
_GOAL_RATE: Final = 0.95
_GOAL_GAP_MS: Final = 100.0
_GOAL_FIRST_MS: Final = 200.0
_GOAL_CPU: Final = 2.0
#: What each token is, but for a digit.
_TOKEN: Final = b"word"


class _Heard:
    """What arrives of all streams."""

    def __init__(self) -> None:
        self.under_way: dict[str, Trip] = {}
        self.outcome = Outcome()
        self.missing = 0
        self.done = asyncio.Event()

    def hear(self, session: str, payload: bytes) -> None:
        trip = self.under_way[session]
        if b'"delta"' in payload:
            trip.delta()
            trip.tokens += payload.count(_TOKEN)
        elif b'"accepted"' not in payload:
            trip.wrong = b'"done"' not in payload
            self.outcome.add(trip, time.perf_counter())
            self.missing -= 1
            if not self.missing:
                self.done.set()


@dataclass(frozen=True, slots=True)
class _Run:
    """One run; `cpu` is seconds of the side's own CPU time."""

    outcome: Outcome
    cpu: float

    def first_ms(self, share: float) -> float:
        return percentile(self.outcome.firsts, share) * 1e3

    def gap_ms(self, share: float) -> float:
        return percentile(self.outcome.gaps, share) * 1e3


_Found = dict[tuple[int, str], list[_Run]]


def measure(plan: Plan) -> list[Section]:
    """First deltas, gaps and CPU time of 64 to 1,000 streams of 50 tokens a second, and of 256 on the real engine.

    Raises:
        ProcessFailedError: broker, ticker, worker or engine does not come up.
        TimeoutError: a stream did not end.
        ValueError: a stream failed.
    """
    return [_section(_simulated(plan)), _on_engine(plan)]


def _on_engine(plan: Plan) -> Section:
    plan = replace(plan, levels=(_ON_ENGINE,))
    with tempfile.TemporaryDirectory(prefix="inferbus-bench-") as folder:
        model = prepare(plan, Path(folder))
        return many_streams_section(engine.rounds(plan, model, STREAMED), plan.levels, model)


def _simulated(plan: Plan) -> _Found:
    most = str(_STREAMS[-1])
    options = ("--workers", most, "--simulated-capacity", most, "--queue-size", most)
    paced = ("--simulated-per-token", f"{_PER_TOKEN}s", "--simulated-first-token", f"{_PER_TOKEN}s")
    ticker = [sys.executable, str(Path(__file__).with_name("ticker.py"))]
    with (
        broker() as port,
        Child([*ticker, str(port), str(_PER_TOKEN), str(_TOKENS_PER_DELTA)]) as bare,
        simulated_worker(port, *options, *paced, "--max-message-bytes", "1MiB", "--max-tokens", "100000") as worker,
    ):
        bare.wait_for("ready", _START_SECONDS)
        worker.wait_for("ready:", _START_SECONDS)
        return _rounds(plan, port, {"ticker": bare, "general": worker})


def _rounds(plan: Plan, port: int, sides: dict[str, Child]) -> _Found:
    found: _Found = defaultdict(list)
    for number in plan.rounds_of("streams"):
        for streams in _STREAMS:
            for project in plan.turned(list(sides), number):
                run = asyncio.run(_run(port, sides[project], project, streams, _SECONDS / (4 if plan.quick else 1)))
                found[streams, project].append(run)
                plan.say(
                    f"{streams} streams, {project}: {_cores(run):.2f} cores, gaps' p99 {run.gap_ms(0.99):.0f} ms, "
                    f"first delta's {run.first_ms(0.99):.0f} ms, {_rate(run):,.0f} tokens/s"
                )
    return found


async def _run(port: int, side: Child, project: str, streams: int, seconds: float) -> _Run:
    heard = _Heard()
    heard.missing = streams
    connection = await Connection.open(port, f"{project}/assistant_response/+", heard.hear)
    text = " ".join(f"{_TOKEN.decode()}{number % 10}" for number in range(int(seconds / _PER_TOKEN)))
    mark = f"{time.monotonic_ns():x}"
    used, began = side.cpu_seconds, time.perf_counter()
    for number in range(streams):
        session = f"{mark}-{number}"
        request = json.dumps({"message": text, "stream": True, "reply": "json", "requestId": session}).encode()
        heard.under_way[session] = Trip(number, time.perf_counter())
        connection.publish(f"{project}/user_input/{session}", request)
        await asyncio.sleep(max(0.0, began + _RAMP * number / streams - time.perf_counter()))
    await asyncio.wait_for(heard.done.wait(), 10 * seconds + _START_SECONDS)
    heard.outcome.seconds = time.perf_counter() - began
    used = side.cpu_seconds - used
    connection.close()
    if heard.outcome.wrong:
        raise ValueError(f"{heard.outcome.wrong} streams of {project} failed")
    return _Run(heard.outcome, used)


def _section(runs: _Found) -> Section:
    most = _STREAMS[-1]
    what = f"{most:,} streams of 50 tokens/s"
    worker = runs[most, "general"]
    rate = Ratio(label=f"{what}: tokens/s, worker / bare loop", spread=_beside(runs, most, _rate), goal=_GOAL_RATE)
    cost = Ratio(
        label=f"{what}: CPU per token, worker / bare loop",
        spread=_beside(runs, most, _cpu_us),
        goal=_GOAL_CPU,
        at_most=True,
    )
    return Section(
        suite="streams",
        title="Many streams",
        method=[
            (
                f"`inferbus serve --engine simulated` with {_PER_TOKEN * 1e3:.0f} ms a token, on one timer for all "
                "answers, beside a bare asyncio program that publishes the same deltas as often "
                "(`scripts/benchmarks/ticker.py`), on one Mosquitto with its default settings."
            ),
            (
                "Each stream is one JSON request; a gap is the time between two deltas of one stream, at the client. "
                f"The first token comes after {_PER_TOKEN * 1e3:.0f} ms, a delta then every "
                f"{_TOKENS_PER_DELTA * _PER_TOKEN * 1e3:.0f} ms; streams begin within {_RAMP:g} s."
            ),
        ],
        header=[
            *("streams", "side", "tokens/s", "first delta p50 (ms)", "first delta p99 (ms)", "gaps p50 (ms)"),
            *("gaps p99 (ms)", "cores", "CPU per token (µs)", "CPU, worker / bare loop"),
        ],
        rows=[_row(runs, streams, side) for streams in _STREAMS for side in ("ticker", "general")],
        verdicts=[
            rate.verdict(f"{what}: at least {_GOAL_RATE} of the tokens/s of a bare loop"),
            _within(what, "the gaps' p99", [run.gap_ms(0.99) for run in worker], _GOAL_GAP_MS),
            _within(what, "the first delta's p99", [run.first_ms(0.99) for run in worker], _GOAL_FIRST_MS),
            cost.verdict(f"{what}: at most {_GOAL_CPU:g} times the CPU time of a bare loop"),
            _cheap(what, Spread.of(map(_cores, worker))),
        ],
        ratios=[rate, cost],
    )


def _within(what: str, figure: str, found: Sequence[float], goal: float) -> Verdict:
    spread = Spread.of(found)
    return Verdict(
        goal=f"{what}: {figure} at most {goal:.0f} ms", figure=f"{spread.text(0)} ms", met=spread.median <= goal
    )


def _cheap(what: str, cores: Spread) -> Verdict:
    return Verdict(
        goal=f"{what}: at most {_GOAL_CORES} of a core", figure=f"{cores.text()} cores", met=cores.median <= _GOAL_CORES
    )


def _row(runs: _Found, streams: int, side: str) -> list[str]:
    is_ours, found = side == "general", runs[streams, side]

    def text(figure: Callable[[_Run], float], digits: int) -> str:
        return Spread.of(map(figure, found)).text(digits)

    return [
        f"{streams:,}",
        "worker" if is_ours else "bare loop",
        text(_rate, 0),
        text(lambda run: run.first_ms(0.5), 0),
        text(lambda run: run.first_ms(0.99), 0),
        text(lambda run: run.gap_ms(0.5), 0),
        text(lambda run: run.gap_ms(0.99), 0),
        text(_cores, 2),
        text(_cpu_us, 1),
        _beside(runs, streams, _cpu_us).text() if is_ours else "",
    ]


def _beside(runs: _Found, streams: int, figure: Callable[[_Run], float]) -> Spread:
    return ratios(list(map(figure, runs[streams, "general"])), list(map(figure, runs[streams, "ticker"])))


def _rate(run: _Run) -> float:
    return run.outcome.tokens_per_second


def _cores(run: _Run) -> float:
    return run.cpu / run.outcome.seconds


def _cpu_us(run: _Run) -> float:
    return run.cpu / run.outcome.tokens * 1e6
