"""Ten times more requests than the worker can take: how soon are they refused, and what do the others notice?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from . import open_loop
from .dialects import Words
from .figures import Ratio, Section, Spread, Verdict, ratios
from .outcome import Outcome, percentile
from .plan import Plan
from .processes import broker, simulated_worker

_WORKERS: Final = 16
_QUEUE: Final = 2
_TOKEN_SECONDS: Final = 0.01
# Answers of different lengths: if all took the same time, all slots would come free at once for ever.
_SHORTEST: Final = 10
_LONGEST: Final = 30
_CAPACITY: Final = _WORKERS / (_TOKEN_SECONDS * (_SHORTEST + _LONGEST) / 2)
_SECONDS: Final = 20.0
_SHORT_SECONDS: Final = 3.0
_START_SECONDS: Final = 30.0
_GOAL_REFUSAL_MS: Final = 5.0
_GOAL_P99: Final = 1.3


@dataclass(frozen=True, slots=True)
class _Load:
    name: str
    times: float


_CALM: Final = _Load("half of capacity", 0.5)
_STORM: Final = _Load("10 times capacity", 10.0)


def measure(plan: Plan) -> list[Section]:
    """Refusal times, and the accepted requests' p99 with and without the storm.

    Raises:
        ProcessFailedError: broker or worker does not come up.
        TimeoutError: an answer did not come.
    """
    runs: dict[_Load, list[Outcome]] = {_CALM: [], _STORM: []}
    options = ["--workers", str(_WORKERS), "--max-workers", str(_WORKERS), "--queue-size", str(_QUEUE)]
    for name in ("--simulated-first-token", "--simulated-per-token"):
        options += [name, f"{_TOKEN_SECONDS}s"]
    with broker() as port, simulated_worker(port, *options) as worker:
        worker.wait_for("ready:", _START_SECONDS)
        for number in plan.rounds_of("overload"):
            for load in plan.turned([_CALM, _STORM], number):
                runs[load].append(_run(plan, port, load))
    return [_section(runs)]


def _run(plan: Plan, port: int, load: _Load) -> Outcome:
    seconds = _SHORT_SECONDS if plan.quick else _SECONDS
    outcome = open_loop.run(port, rate=load.times * _CAPACITY, seconds=seconds, dialect=Words(_SHORTEST, _LONGEST))
    if outcome.wrong or not outcome.round_trips:
        raise ValueError(f"at {load.name}: {outcome.wrong} wrong answers, {len(outcome.round_trips)} right ones")
    plan.say(f"{load.name}: {len(outcome.round_trips)} answered, {len(outcome.refusals)} refused")
    return outcome


def _p99_ms(outcome: Outcome) -> float:
    return percentile(outcome.round_trips, 0.99) * 1e3


def _section(runs: dict[_Load, list[Outcome]]) -> Section:
    refusal = Spread.of(percentile(run.refusals, 0.5) * 1e3 for run in runs[_STORM])
    slower = Ratio(
        label="overload: accepted p99, 10 times capacity / half",
        spread=ratios([_p99_ms(run) for run in runs[_STORM]], [_p99_ms(run) for run in runs[_CALM]]),
        goal=_GOAL_P99,
        at_most=True,
    )
    return Section(
        suite="overload",
        title="Overload",
        method=[
            (
                f"Simulated engine, {_WORKERS} at once, answers of {_SHORTEST} to {_LONGEST} tokens at "
                f"{_TOKEN_SECONDS * 1e3:.0f} ms each: {_CAPACITY:.0f} requests/s is all it can do. Queue of {_QUEUE}."
            ),
            (
                "Open loop: requests come at a steady rate whatever becomes of the ones before, each in a session of "
                "its own."
            ),
            f"A full queue alone adds {_QUEUE / _WORKERS:.1%} to the mean request's time.",
        ],
        header=["load", "answered/s", "refused/s", "accepted p50 (ms)", "accepted p99 (ms)", "refused p50 (ms)"],
        rows=[_row(load, found) for load, found in runs.items()],
        verdicts=[
            Verdict(
                goal=f"Overload: refused within {_GOAL_REFUSAL_MS:g} ms at the median",
                figure=f"{refusal.text()} ms",
                met=refusal.median <= _GOAL_REFUSAL_MS,
            ),
            slower.verdict(f"Overload: accepted requests' p99 at most {_GOAL_P99} times that at half of capacity"),
        ],
        ratios=[slower],
    )


def _row(load: _Load, found: list[Outcome]) -> list[str]:
    refused = [run for run in found if run.refusals]
    return [
        load.name,
        Spread.of(run.per_second for run in found).text(0),
        Spread.of(len(run.refusals) / run.seconds for run in found).text(0),
        Spread.of(percentile(run.round_trips, 0.5) * 1e3 for run in found).text(1),
        Spread.of(_p99_ms(run) for run in found).text(1),
        Spread.of(percentile(run.refusals, 0.5) * 1e3 for run in refused).text(2) if refused else "none refused",
    ]
