"""Has a change made requests dearer? The worker's CPU time per request at two commits, in turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from inferbus_client.units import counted

from . import bus
from .commits import exported, short
from .figures import Spread, ratios
from .plan import Plan
from .processes import Child, broker, worker

HEADER: Final = ("dialect", "load", "before (µs)", "now (µs)", "now / before")

#: Few enough for CI, and enough for a system's clock of 10 ms.
_REQUESTS: Final = {1: 1_000, 64: 4_000}
_START_SECONDS: Final = 60.0


def compare(plan: Plan, commit: str) -> Iterator[tuple[str, ...]]:
    """Rows under `HEADER`, each as soon as its rounds are done: `commit`, and the tree as it lies here.

    Raises:
        NoSuchCommitError: this checkout does not have it.
        ProcessFailedError: a broker or a worker does not come up.
        TimeoutError: an answer did not come.
        ValueError: an answer was not what was asked for.
    """
    with ExitStack() as running:
        tree = running.enter_context(exported(commit, "client", "worker"))
        code = {"PYTHONPATH": f"{tree / 'client'}:{tree / 'worker'}"}
        sides = {short(commit): _serving(running, code), "here": _serving(running, {})}
        for _, serving in sides.values():
            serving.wait_for("ready:", _START_SECONDS)
        for spoken in bus.SPOKEN:
            for sessions in _REQUESTS:
                before, now = _rounds(plan, sides, spoken, sessions)
                figures = (Spread.of(before).text(0), Spread.of(now).text(0), ratios(now, before).text())
                yield (spoken.title, counted(sessions, "session"), *figures)


def _serving(running: ExitStack, environment: dict[str, str]) -> tuple[int, Child]:
    """A worker on a broker of its own, whose port comes first."""
    port = running.enter_context(broker())
    return port, running.enter_context(worker(port, "--engine", "simulated", environment=environment))


def _rounds(
    plan: Plan, sides: dict[str, tuple[int, Child]], spoken: bus.Spoken, sessions: int
) -> tuple[list[float], list[float]]:
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(plan.rounds):
        for name in plan.turned(list(sides), number):
            port, serving = sides[name]
            requests = plan.scaled(_REQUESTS[sessions])
            found[name].append(bus.run(port, serving, requests, spoken.dialect, sessions=sessions).cpu_us)
    before, now = found.values()
    return before, now
