"""A group that grows: 1, 2, 4, 8 workers on one Mosquitto and one Redis."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import psutil

from . import closed_loop
from .outcome import percentile
from .plan import Plan
from .processes import Child, broker, redis, simulated_worker

SLOTS: Final = 16
ANSWER_MS: Final = 100

_COUNTS: Final = (1, 2, 4, 8)
#: What takes about five seconds, however many workers share it.
_REQUESTS_PER_WORKER: Final = 800
_SESSIONS_PER_SLOT: Final = 2
_START_SECONDS: Final = 60.0
#: Of all requests. Where the cores are full, the store may once not answer in time; so few change no rate.
_MOST_REFUSED: Final = 0.01


@dataclass(frozen=True, slots=True)
class Grown:
    """One run. `workers`, `redis` and `machine` are cores in use: of all workers, of the store, of everybody.

    What was refused, since the store did not answer in time, is not among the requests of `per_second`.
    """

    per_second: float
    median_ms: float
    workers: float
    redis: float
    machine: float
    refused: int


def measure(plan: Plan) -> dict[int, list[Grown]]:
    """The rounds by the number of workers. See `fleet.measure` for what it raises."""
    found: dict[int, list[Grown]] = defaultdict(list)
    for _ in plan.rounds_of("fleet, several workers"):
        with ExitStack() as running:
            port = running.enter_context(broker())
            url, store = running.enter_context(redis())
            workers: list[Child] = []
            for count in _COUNTS:
                _grow(running, workers, count, port, url)
                run = _run(plan, port, workers, store)
                found[count].append(run)
                plan.say(f"{count} workers: {run.per_second:,.0f}/s, {run.machine:.2f} cores of the machine in use")
    return found


def _grow(running: ExitStack, workers: list[Child], count: int, port: int, url: str) -> None:
    slots = str(SLOTS)
    options = ["--workers", slots, "--max-workers", slots, "--simulated-capacity", slots]
    paced = ["--simulated-first-token", f"{ANSWER_MS}ms"]
    began = len(workers)
    for number in range(began, count):
        named = ["--worker-id", f"bench-{number}"]
        workers.append(running.enter_context(simulated_worker(port, *named, "--state", url, *options, *paced)))
    for worker in workers[began:]:
        worker.wait_for('"ready:', _START_SECONDS)


def _run(plan: Plan, port: int, workers: Sequence[Child], store: Child) -> Grown:
    sessions = _SESSIONS_PER_SLOT * SLOTS * len(workers)
    requests = max(2 * sessions, plan.scaled(_REQUESTS_PER_WORKER * len(workers)))
    closed_loop.run(port, sessions=sessions, requests=sessions)  # to warm up
    used, stored, began = _cpu(workers), store.cpu_seconds, time.perf_counter()
    psutil.cpu_percent()  # the next one tells of the time since
    outcome = closed_loop.run(port, sessions=sessions, requests=requests)
    machine = psutil.cpu_percent() / 100 * (psutil.cpu_count() or 1)
    took = time.perf_counter() - began
    if outcome.failed > _MOST_REFUSED * requests:
        raise ValueError(f"{outcome.failed} answers of {len(workers)} workers are not what was asked for")
    return Grown(
        outcome.per_second,
        percentile(outcome.round_trips, 0.5) * 1e3,
        (_cpu(workers) - used) / took,
        (store.cpu_seconds - stored) / took,
        machine,
        outcome.failed,
    )


def _cpu(workers: Sequence[Child]) -> float:
    return sum(worker.cpu_seconds for worker in workers)
