"""What the benchmarks hold the worker to stands in the document, and is missed where the figures miss it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Final

import pytest

from benchmarks import bus, streams
from benchmarks.engine_sections import engine_section, streaming_section
from benchmarks.figures import Section
from benchmarks.model import Model
from benchmarks.outcome import Outcome
from benchmarks.runs import Run, Runs
from benchmarks.sides import Way

_MODEL: Final = Model("a model", Path("model"), (), {}, 16)


def test_the_bus_is_held_to_the_echo_in_each_dialect() -> None:
    pairs = [
        bus._Pair(spoken, sessions, [bus.Run(100.0, 1.0, 2.0, 30.0)], [bus.Run(79.0, 1.1, 2.0, 40.0)])
        for spoken in bus.SPOKEN
        for sessions in (1, 64, 256)
    ]
    assert _verdicts(bus._section(pairs)) == {
        "Simulated engine, plain text, 64 sessions: at least 0.8 of the echo's requests/s": False,
        "Simulated engine, plain text, 256 sessions: at least 0.8 of the echo's requests/s": False,
        "Simulated engine, JSON with ids, 64 sessions: at least 0.75 of the echo's requests/s": True,
        "Simulated engine, our client's JSON, 64 sessions: at least 0.75 of the echo's requests/s": True,
        **{
            f"Simulated engine, {dialect}, 1 session: median round trip within 0.15 ms of the echo's": True
            for dialect in ("plain text", "JSON with ids", "our client's JSON")
        },
    }


@pytest.mark.parametrize(("front", "is_met"), [(1.25, True), (1.26, False)])
def test_the_front_process_is_held_to_the_least_bus(front: float, *, is_met: bool) -> None:
    section = engine_section(_runs(bus_front=front), [64], _MODEL)
    goal = "a model, 64 sessions: at most 1.25 of the front process' CPU per request of the least bus"
    assert _verdicts(section)[goal] is is_met


def test_the_real_engine_is_held_to_the_least_bus_at_64_sessions_and_to_in_process_at_256() -> None:
    goals = _verdicts(engine_section(_runs(), [1, 64, 256], _MODEL))
    assert goals["a model, 64 sessions: at least 0.95 of the requests/s of the least bus"]
    assert all(f"a model, {level}: above vLLM's HTTP server" in goals for level in ("1 session", "64 sessions"))
    in_process = "the requests/s of the same engine in-process"
    assert [goal for goal in goals if goal.startswith(f"a model, 256 sessions: at least 0.98 of {in_process}")]
    streamed = _verdicts(streaming_section(_runs(), [256], _MODEL))
    assert f"Streaming, a model, 256 sessions: at least 0.98 of {in_process} (asyncio, streamed)" in streamed


def test_a_thousand_streams_are_held_to_the_bare_loop() -> None:
    runs: streams._Found = defaultdict(list)
    for count in streams._STREAMS:
        runs[count, "ticker"].append(streams._Run(_outcome(tokens=50_000, first=0.02, gap=0.06), 0.2))
        runs[count, "general"].append(streams._Run(_outcome(tokens=48_000, first=0.25, gap=0.09), 0.3))
    what = "1,000 streams of 50 tokens/s"
    assert _verdicts(streams._section(runs)) == {
        f"{what}: at least 0.95 of the tokens/s of a bare loop": True,
        f"{what}: the gaps' p99 at most 100 ms": True,
        f"{what}: the first delta's p99 at most 200 ms": False,
        f"{what}: at most 2 times the CPU time of a bare loop": True,
        f"{what}: at most 0.5 of a core": True,
    }


def _verdicts(section: Section) -> dict[str, bool]:
    return {verdict.goal: verdict.met for verdict in section.verdicts}


def _runs(bus_front: float = 1.0) -> Runs:
    """The same figures every way, but for the CPU time of the process that takes the requests in."""
    runs: Runs = defaultdict(list)
    for way in Way:
        for level in (1, 64, 256):
            front = bus_front if way is Way.BUS else 1.0
            runs[way, level].append(Run(_outcome(tokens=100, first=0.1, gap=0.01), 3.0, front))
    return runs


def _outcome(*, tokens: int, first: float, gap: float) -> Outcome:
    return Outcome(seconds=1.0, tokens=tokens, round_trips=[1.0] * 10, firsts=[first] * 10, gaps=[gap] * 10)
