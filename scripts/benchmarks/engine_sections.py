"""The document's sections on the real engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .figures import Ratio, Section, Spread, Verdict
from .model import Model
from .runs import Run, Runs, faster, per_second, sessions, spread
from .sides import Way

_OF_IN_PROCESS: Final = 0.95
_OF_HTTP: Final = 1.0
_OF_WHOLE: Final = 0.9


def engine_section(runs: Runs, levels: Sequence[int], model: Model) -> Section:
    """Whole answers: the bus beside the engine alone and beside vLLM's HTTP server."""
    alone = [_ratio(runs, Way.BUS, Way.THREADS, level, _OF_IN_PROCESS, model) for level in levels]
    serving = [_ratio(runs, Way.BUS, Way.ASYNCIO, level, _OF_IN_PROCESS, model) for level in levels]
    http = [_ratio(runs, Way.BUS, Way.HTTP, level, _OF_HTTP, model) for level in levels]
    verdicts = []
    for level, above, layer, below in zip(levels, alone, serving, http, strict=True):
        what = f"{model.title}, {sessions(level)}"
        of = f"at least {_OF_IN_PROCESS} of the requests/s of the same engine in-process"
        verdicts += [
            above.verdict(f"{what}: {of} (threads, `Engine.generate`)"),
            layer.verdict(f"{what}: {of} (asyncio, vLLM's serving layer alone)"),
            below.verdict(f"{what}: above vLLM's HTTP server"),
        ]
    ways = (Way.BUS, Way.THREADS, Way.ASYNCIO, Way.HTTP)
    return Section(
        suite="engine",
        setting=model.title,
        title=f"The real engine: {model.title}",
        method=[
            *_method(model),
            (
                "In-process is measured twice: from one thread per request through `VllmEngine.generate`, as the "
                "worker itself does it, and from asyncio tasks on vLLM's chat serving layer, with nothing of ours "
                "between."
            ),
        ],
        header=["sessions", "way", "requests/s", "bus / this way", "tokens/s", "median answer (ms)", "CPU (ms)"],
        rows=[_row(runs, way, level) for level in levels for way in ways],
        verdicts=verdicts,
        ratios=[*alone, *serving, *http],
    )


def _method(model: Model) -> list[str]:
    return [
        (
            f"vLLM with `{' '.join(model.options)}` on every side; one engine at a time, each in processes "
            "of its own, in turns."
        ),
        (
            f"Closed loop, the same prompts on every side, each asked once in a run; temperature 0, at most "
            f"{model.max_tokens} tokens, one cache salt per session."
        ),
        (
            "Over the bus: own Mosquitto, JSON replies, histories switched off. Over HTTP: aiohttp, kept-alive "
            "connections, vLLM's logs switched off."
        ),
        (
            "CPU is that of the serving processes per request, the engine's included, broker and load left out "
            "(in-process the load is part of it)."
        ),
    ]


def _row(runs: Runs, way: Way, level: int) -> list[str]:
    found = runs[way, level]
    return [
        str(level),
        way.value,
        spread(found, per_second).text(1),
        "" if way is Way.BUS else faster(runs, Way.BUS, way, level).text(),
        spread(found, lambda run: run.outcome.tokens_per_second).text(0),
        spread(found, lambda run: run.whole_ms).text(1),
        spread(found, lambda run: run.cpu_ms).text(1),
    ]


def streaming_section(runs: Runs, levels: Sequence[int], model: Model) -> Section:
    """Streamed answers: beside whole ones, and beside vLLM's HTTP streaming."""
    kept = [_ratio(runs, Way.BUS_STREAM, Way.BUS, level, _OF_WHOLE, model) for level in levels]
    verdicts = []
    for level, ratio in zip(levels, kept, strict=True):
        what = f"Streaming, {model.title}, {sessions(level)}"
        verdicts += [
            ratio.verdict(f"{what}: at least {_OF_WHOLE} of the requests/s without streaming"),
            _sooner(runs, level, f"{what}: first delta no later than over HTTP"),
        ]
    ways = (Way.BUS, Way.BUS_STREAM, Way.HTTP_STREAM)
    return Section(
        suite="streaming",
        setting=model.title,
        title=f"Streaming: {model.title}",
        method=[
            *_method(model),
            (
                "The first delta is the first message with text in it: over HTTP the first event carries none, and "
                "does not count."
            ),
            (
                "Over the bus deltas are coalesced (`--delta-interval 50ms`, as it comes); over HTTP every token is an "
                "event."
            ),
        ],
        header=["sessions", "way", "requests/s", "median first delta (ms)", "median answer (ms)", "CPU (ms)"],
        rows=[_streaming_row(runs[way, level], way, level) for level in levels for way in ways],
        verdicts=verdicts,
        ratios=kept,
    )


def _streaming_row(found: list[Run], way: Way, level: int) -> list[str]:
    return [
        str(level),
        way.value,
        spread(found, per_second).text(1),
        "" if way is Way.BUS else spread(found, lambda run: run.first_ms).text(1),
        spread(found, lambda run: run.whole_ms).text(1),
        spread(found, lambda run: run.cpu_ms).text(1),
    ]


def _sooner(runs: Runs, level: int, goal: str) -> Verdict:
    pairs = zip(runs[Way.BUS_STREAM, level], runs[Way.HTTP_STREAM, level], strict=True)
    later = Spread.of(bus.first_ms - http.first_ms for bus, http in pairs)
    return Verdict(goal=goal, figure=f"{later.text(1)} ms later", met=later.median <= 0)


def _ratio(runs: Runs, way: Way, other: Way, level: int, goal: float, model: Model) -> Ratio:
    label = f"{model.title}, {sessions(level)}: {way.value} / {other.value}"
    return Ratio(label=label, spread=faster(runs, way, other, level), goal=goal)
