"""The document's sections on the real engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from inferbus_client.units import counted

from .figures import Ratio, Section, Spread, Verdict
from .model import Model
from .runs import Run, Runs, compared, faster, front_ms, per_second, spread
from .sides import Way

_OF_IN_PROCESS: Final = 0.95
#: With so many at once, of a model of some size, the bus has all the time that the engine needs.
_MANY: Final = 256
_OF_IN_PROCESS_MANY: Final = 0.98
_OF_HTTP: Final = 1.0
_OF_WHOLE: Final = 0.9
#: The least bus is a yardstick at this level; its rows are there at every one.
_LEAST_LEVEL: Final = 64
_OF_LEAST: Final = 0.95
_FRONT_OF_LEAST: Final = 1.25

#: How a goal names what the bus is beside.
_BESIDE: Final = {
    Way.THREADS: "the same engine in-process (threads, `Engine.generate`)",
    Way.ASYNCIO: "the same engine in-process (asyncio, vLLM's serving layer alone)",
    Way.ASYNCIO_STREAM: "the same engine in-process (asyncio, streamed)",
    Way.LEAST: "the least bus",
}

WHOLE: Final = (Way.BUS, Way.THREADS, Way.ASYNCIO, Way.LEAST, Way.HTTP)
STREAMED: Final = (Way.BUS_STREAM, Way.ASYNCIO_STREAM, Way.LEAST_STREAM, Way.HTTP_STREAM)


def engine_section(runs: Runs, levels: Sequence[int], model: Model) -> Section:
    """Whole answers: the bus beside the engine alone, the least bus and vLLM's HTTP server."""
    goals = [goal for level in levels for goal in _whole_goals(runs, level, model)]
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
        header=[
            *("sessions", "way", "requests/s", "bus / this way", "tokens/s", "median answer (ms)", "CPU (ms)"),
            *("front's CPU (ms)", "front's CPU, bus / this way"),
        ],
        rows=[_row(runs, way, level) for level in levels for way in WHOLE],
        verdicts=[ratio.verdict(goal) for ratio, goal in goals],
        ratios=[ratio for ratio, _ in goals],
    )


def _whole_goals(runs: Runs, level: int, model: Model) -> Iterable[tuple[Ratio, str]]:
    what = f"{model.title}, {counted(level, 'session')}"
    yield from (_of(runs, Way.BUS, way, level, model, _of_in_process(level)) for way in (Way.THREADS, Way.ASYNCIO))
    if level == _LEAST_LEVEL:
        yield _of(runs, Way.BUS, Way.LEAST, level, model, _OF_LEAST)
        cost = Ratio(
            label=f"{what}: front's CPU per request, over the bus / the least bus",
            spread=compared(runs, Way.BUS, Way.LEAST, level, front_ms),
            goal=_FRONT_OF_LEAST,
            at_most=True,
        )
        yield cost, f"{what}: at most {_FRONT_OF_LEAST} of the front process' CPU per request of the least bus"
    yield _ratio(runs, Way.BUS, Way.HTTP, level, _OF_HTTP, model), f"{what}: above vLLM's HTTP server"


def _of(runs: Runs, way: Way, other: Way, level: int, model: Model, goal: float) -> tuple[Ratio, str]:
    """At least this share of another way's requests per second."""
    words = f"{model.title}, {counted(level, 'session')}: at least {goal} of the requests/s of {_BESIDE[other]}"
    return _ratio(runs, way, other, level, goal, model), words


def _of_in_process(level: int) -> float:
    return _OF_IN_PROCESS_MANY if level == _MANY else _OF_IN_PROCESS


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
            "The least bus is one asyncio program that reads the same requests from the same broker with paho, and "
            "calls vLLM's serving layer: no admission, sessions or threads (`scripts/benchmarks/least_bus.py`). It "
            "puts deltas together as the worker does."
        ),
        (
            "CPU is that of the serving processes per request, the engine's included, broker and load left out "
            "(in-process the load is part of it); the front's is that of the process which takes the requests in."
        ),
    ]


def _row(runs: Runs, way: Way, level: int) -> list[str]:
    found = runs[way, level]
    is_ours = way is Way.BUS
    return [
        str(level),
        way.value,
        spread(found, per_second).text(1),
        "" if is_ours else faster(runs, Way.BUS, way, level).text(),
        spread(found, _tokens_per_second).text(0),
        spread(found, lambda run: run.whole_ms).text(1),
        spread(found, lambda run: run.cpu_ms).text(1),
        spread(found, front_ms).text(2),
        "" if is_ours else compared(runs, Way.BUS, way, level, front_ms).text(),
    ]


def streaming_section(runs: Runs, levels: Sequence[int], model: Model) -> Section:
    """Streamed answers: beside whole ones, and beside the engine alone, the least bus and vLLM's HTTP streaming."""
    goals = [goal for level in levels for goal in _streamed_goals(runs, level, model)]
    return Section(
        suite="streaming",
        setting=model.title,
        title=f"Streaming: {model.title}",
        method=[*_method(model), *_streaming_method()],
        header=["sessions", "way", *_STREAMED_HEADER],
        rows=[[str(level), *_streamed_row(runs, way, level)] for level in levels for way in (Way.BUS, *STREAMED)],
        verdicts=[
            *(ratio.verdict(f"Streaming, {goal}") for ratio, goal in goals),
            *(_sooner(runs, level, model) for level in levels),
        ],
        ratios=[ratio for ratio, _ in goals],
    )


def _streamed_goals(runs: Runs, level: int, model: Model) -> Iterable[tuple[Ratio, str]]:
    what = f"{model.title}, {counted(level, 'session')}"
    whole = _ratio(runs, Way.BUS_STREAM, Way.BUS, level, _OF_WHOLE, model)
    yield whole, f"{what}: at least {_OF_WHOLE} of the requests/s without streaming"
    if level == _MANY:
        yield _of(runs, Way.BUS_STREAM, Way.ASYNCIO_STREAM, level, model, _of_in_process(level))
        http = _ratio(runs, Way.BUS_STREAM, Way.HTTP_STREAM, level, _OF_HTTP, model)
        yield http, f"{what}: above vLLM's HTTP server"


def many_streams_section(runs: Runs, levels: Sequence[int], model: Model) -> Section:
    """So many streams that the engine is their limit: how evenly they come."""
    return Section(
        suite="streams",
        setting=model.title,
        title=f"Many streams: {model.title}",
        method=[*_method(model), *_streaming_method()],
        header=["streams", "way", *_STREAMED_HEADER],
        rows=[[str(level), *_streamed_row(runs, way, level)] for level in levels for way in STREAMED],
    )


def _streaming_method() -> list[str]:
    return [
        (
            "The first delta is the first message with text in it: over HTTP the first event carries none, and does "
            "not count. A gap is the time between two deltas of one answer."
        ),
        (
            "Over the bus deltas are coalesced (`--delta-interval 50ms`, as it comes); over HTTP and in-process every "
            "token is one."
        ),
    ]


_STREAMED_HEADER: Final = (
    *("requests/s", "tokens/s", "first delta p50 (ms)", "first delta p99 (ms)", "gaps p50 (ms)", "gaps p99 (ms)"),
    *("median answer (ms)", "CPU (ms)", "front's CPU (ms)"),
)


def _streamed_row(runs: Runs, way: Way, level: int) -> list[str]:
    found = runs[way, level]
    return [
        way.value,
        spread(found, per_second).text(1),
        spread(found, _tokens_per_second).text(0),
        *(["", "", "", ""] if way is Way.BUS else _deltas(found)),
        spread(found, lambda run: run.whole_ms).text(1),
        spread(found, lambda run: run.cpu_ms).text(1),
        spread(found, front_ms).text(2),
    ]


def _deltas(found: list[Run]) -> list[str]:
    return [
        spread(found, lambda run: run.first_ms).text(1),
        spread(found, lambda run: run.first_p99_ms).text(1),
        spread(found, lambda run: run.gap_ms(0.5)).text(1),
        spread(found, lambda run: run.gap_ms(0.99)).text(1),
    ]


def _sooner(runs: Runs, level: int, model: Model) -> Verdict:
    pairs = zip(runs[Way.BUS_STREAM, level], runs[Way.HTTP_STREAM, level], strict=True)
    later = Spread.of(bus.first_ms - http.first_ms for bus, http in pairs)
    return Verdict(
        goal=f"Streaming, {model.title}, {counted(level, 'session')}: first delta no later than over HTTP",
        figure=f"{later.text(1)} ms later",
        met=later.median <= 0,
    )


def _tokens_per_second(run: Run) -> float:
    return run.outcome.tokens_per_second


def _ratio(runs: Runs, way: Way, other: Way, level: int, goal: float, model: Model) -> Ratio:
    label = f"{model.title}, {counted(level, 'session')}: {way.value} / {other.value}"
    return Ratio(label=label, spread=faster(runs, way, other, level), goal=goal)
