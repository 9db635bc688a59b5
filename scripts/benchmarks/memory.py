"""What a session and a waiting request cost, and whether the worker grows with what it has seen."""

from __future__ import annotations

from typing import Final

from . import closed_loop
from .dialects import Dialect, Text, UntilAccepted
from .figures import Curve, Section, Spread, Verdict
from .plan import Plan
from .processes import Child, broker, simulated_worker

_START_SECONDS: Final = 30.0
_SAMPLE: Final = 50_000
_WARM_UP: Final = 5_000
_MESSAGE: Final = 100
_TOTAL: Final = 1_000_000
_POINTS: Final = 20
_AT_ONCE: Final = 64
# Where the plateau has been reached: caches are full, the allocator has its arenas.
_PLATEAU: Final = 0.3
_FLAT: Final = 0.02
_PATIENCE: Final = 1800.0
_LONG: Final = "1h"


def measure(plan: Plan) -> list[Section]:
    """Bytes per idle session, per queued request; the resident size over a million session ids.

    Raises:
        ProcessFailedError: broker or worker does not come up.
        TimeoutError: an answer did not come.
    """
    sessions, queued = [], []
    for _ in plan.rounds_of("memory"):
        sessions.append(_per_session(plan))
        queued.append(_per_queued(plan))
        plan.say(f"{sessions[-1]:.0f} bytes per idle session, {queued[-1]:.0f} per queued request")
    curve = _grow(plan)
    return [_section(Spread.of(sessions), Spread.of(queued), curve)]


def _per_session(plan: Plan) -> float:
    with broker() as port, simulated_worker(port, "--max-sessions", "1000000") as worker:
        return _growth(plan, port, worker, Text(_MESSAGE))


def _per_queued(plan: Plan) -> float:
    options = ["--queue-size", "1000000", "--workers", "1", "--max-workers", "1", "--simulated-per-token", _LONG]
    with broker() as port, simulated_worker(port, *options) as worker:
        return _growth(plan, port, worker, UntilAccepted())


def _growth(plan: Plan, port: int, worker: Child, dialect: Dialect) -> float:
    """Bytes of resident size per request, each in a session of its own."""
    worker.wait_for("ready:", _START_SECONDS)
    _load(port, plan.scaled(_WARM_UP), dialect)
    before, sample = worker.resident_bytes, plan.scaled(_SAMPLE)
    _load(port, sample, dialect)
    return (worker.resident_bytes - before) / sample


def _load(port: int, requests: int, dialect: Dialect | None = None) -> None:
    outcome = closed_loop.run(
        port, sessions=_AT_ONCE, requests=requests, dialect=dialect, fresh=True, patience=_PATIENCE
    )
    if outcome.wrong or outcome.refusals:
        raise ValueError(f"{outcome.wrong} wrong answers and {len(outcome.refusals)} refusals")


def _grow(plan: Plan) -> Curve:
    """The resident size on the way to a million requests with as many session ids; settings as they come."""
    curve, step = Curve(requests=[], megabytes=[]), plan.scaled(_TOTAL) // _POINTS
    with broker() as port, simulated_worker(port) as worker:
        worker.wait_for("ready:", _START_SECONDS)
        for point in range(_POINTS + 1):
            if point:
                _load(port, step)
            curve.requests.append(point * step)
            curve.megabytes.append(worker.resident_bytes / 1e6)
            plan.say(f"{point * step:,} requests: {curve.megabytes[-1]:.1f} MB")
    return curve


def _section(session: Spread, queued: Spread, curve: Curve) -> Section:
    plateau = curve.megabytes[int(_PLATEAU * _POINTS) :]
    growth = plateau[-1] - plateau[0]
    total = curve.requests[-1]
    return Section(
        suite="memory",
        title="Memory",
        method=[
            "Resident size of `inferbus serve --engine simulated`, from the operating system.",
            (
                f"An idle session holds one question and its answer, {_MESSAGE} characters each; a queued request a "
                f"message of {_MESSAGE} characters."
            ),
            (
                f"Then {total:,} requests, each with a session id of its own, with every bound as it comes "
                "(1,000 sessions)."
            ),
        ],
        header=["what", "figure"],
        rows=[
            ["bytes per idle session", session.text(0)],
            ["bytes per queued request", queued.text(0)],
            ["resident size when ready (MB)", f"{curve.megabytes[0]:.1f}"],
            [f"resident size after {curve.requests[int(_PLATEAU * _POINTS)]:,} requests (MB)", f"{plateau[0]:.1f}"],
            [f"resident size after {total:,} requests (MB)", f"{plateau[-1]:.1f}"],
        ],
        verdicts=[
            Verdict(
                goal=f"Memory: flat after the first {_PLATEAU:.0%} of {total:,} requests with as many session ids "
                f"(within {_FLAT:.0%})",
                figure=f"{growth:+.1f} MB, {growth / plateau[0]:+.1%}",
                met=growth <= _FLAT * plateau[0],
            )
        ],
        curve=curve,
    )
