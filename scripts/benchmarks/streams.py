"""Many streams at once: what they cost the worker, and how evenly they come, beside a bare timer loop."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .figures import Section, Spread, Verdict
from .mqtt import Connection
from .outcome import percentile
from .plan import Plan
from .processes import Child, broker, simulated_worker

_STREAMS: Final = (256, 512, 1_000)
_SECONDS: Final = 8.0
_PER_TOKEN: Final = 0.02
_INTERVAL: Final = 0.05
_TOKENS_PER_DELTA: Final = 3
#: Streams begin one after the other, within this time.
_RAMP: Final = 1.0
_START_SECONDS: Final = 30.0
_GOAL_CORES: Final = 0.5
_GOAL_GAP_MS: Final = 100.0


@dataclass
class _Heard:
    """What arrives of all streams."""

    missing: int
    last: dict[str, float] = field(default_factory=dict)
    gaps: list[float] = field(default_factory=list)
    deltas: int = 0
    failed: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, session: str, payload: bytes) -> None:
        now = time.perf_counter()
        if b'"delta"' in payload:
            self.deltas += 1
            before = self.last.get(session)
            if before is not None:
                self.gaps.append(now - before)
            self.last[session] = now
        elif b'"accepted"' not in payload:
            self.failed += b'"done"' not in payload
            self.missing -= 1
            if not self.missing:
                self.done.set()


@dataclass(frozen=True, slots=True)
class _Run:
    cores: float
    gap_ms: float
    deltas_per_s: float


def measure(plan: Plan) -> list[Section]:
    """CPU time and gaps of 256, 512 and 1,000 streams of 50 tokens a second.

    Raises:
        ProcessFailedError: broker, ticker or worker does not come up.
        TimeoutError: a stream did not end.
    """
    most = str(_STREAMS[-1])
    options = ("--workers", most, "--simulated-capacity", most, "--queue-size", most)
    paced = ("--simulated-per-token", f"{_PER_TOKEN}s", "--simulated-first-token", f"{_PER_TOKEN}s")
    ticker = [sys.executable, str(Path(__file__).with_name("ticker.py"))]
    with (
        broker() as port,
        Child([*ticker, str(port), str(_INTERVAL), str(_TOKENS_PER_DELTA)]) as bare,
        simulated_worker(port, *options, *paced, "--max-message-bytes", "1MiB", "--max-tokens", "100000") as worker,
    ):
        bare.wait_for("ready", _START_SECONDS)
        worker.wait_for("ready:", _START_SECONDS)
        runs = _rounds(plan, port, {"ticker": bare, "general": worker})
    return [_section(runs)]


def _rounds(plan: Plan, port: int, sides: dict[str, Child]) -> dict[tuple[int, str], list[_Run]]:
    found: dict[tuple[int, str], list[_Run]] = defaultdict(list)
    for number in plan.rounds_of("streams"):
        for streams in _STREAMS:
            for project in plan.turned(list(sides), number):
                run = asyncio.run(_run(port, sides[project], project, streams, _SECONDS / (4 if plan.quick else 1)))
                found[streams, project].append(run)
                plan.say(
                    f"{streams} streams, {project}: {run.cores:.2f} cores, gaps' p99 {run.gap_ms:.0f} ms, "
                    f"{run.deltas_per_s:,.0f} deltas/s"
                )
    return found


async def _run(port: int, side: Child, project: str, streams: int, seconds: float) -> _Run:
    heard = _Heard(streams)
    connection = await Connection.open(port, f"{project}/assistant_response/+", heard.hear)
    text = " ".join(f"word{number % 10}" for number in range(int(seconds / _PER_TOKEN)))
    mark = f"{time.monotonic_ns():x}"
    used, began = side.cpu_seconds, time.perf_counter()
    for number in range(streams):
        request = {"message": text, "stream": True, "reply": "json", "requestId": f"{mark}-{number}"}
        connection.publish(f"{project}/user_input/{mark}-{number}", json.dumps(request).encode())
        await asyncio.sleep(max(0.0, began + _RAMP * number / streams - time.perf_counter()))
    await asyncio.wait_for(heard.done.wait(), 10 * seconds + _START_SECONDS)
    took = time.perf_counter() - began
    connection.close()
    if heard.failed:
        raise ValueError(f"{heard.failed} streams of {project} failed")
    return _Run((side.cpu_seconds - used) / took, percentile(heard.gaps, 0.99) * 1e3, heard.deltas / took)


def _section(runs: dict[tuple[int, str], list[_Run]]) -> Section:
    largest = runs[_STREAMS[-1], "general"]
    cores, gaps = Spread.of(run.cores for run in largest), Spread.of(run.gap_ms for run in largest)
    return Section(
        suite="streams",
        title="Many streams",
        method=[
            (
                "`inferbus serve --engine simulated` with 20 ms a token, beside a bare timer loop that publishes as "
                "long deltas as often (`scripts/benchmarks/ticker.py`), on one Mosquitto with its default settings."
            ),
            "Each stream is one JSON request; a gap is the time between two deltas of one stream, at the client.",
        ],
        header=["streams", "side", "cores", "gaps' p99 (ms)", "deltas/s"],
        rows=[_row(streams, side, found) for (streams, side), found in sorted(runs.items())],
        verdicts=[
            Verdict(
                goal=f"{_STREAMS[-1]:,} streams of 50 tokens/s cost at most {_GOAL_CORES} of a core",
                figure=f"{cores.text(2)} cores",
                met=cores.median <= _GOAL_CORES,
            ),
            Verdict(
                goal=f"and the gaps' p99 is under {_GOAL_GAP_MS:.0f} ms",
                figure=f"{gaps.text(0)} ms",
                met=gaps.median < _GOAL_GAP_MS,
            ),
        ],
        ratios=[],
    )


def _row(streams: int, side: str, runs: Sequence[_Run]) -> list[str]:
    name = "worker" if side == "general" else "timer loop"
    return [
        str(streams),
        name,
        Spread.of(run.cores for run in runs).text(2),
        Spread.of(run.gap_ms for run in runs).text(0),
        Spread.of(run.deltas_per_s for run in runs).text(0),
    ]
