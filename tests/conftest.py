"""Fixtures for every test: a real broker and real workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from support.mosquitto import Mosquitto, free_port
from support.needs import needs_module
from support.worker import WorkerProcess

pytest_plugins = ("support.backends", "support.figures", "support.left_behind", "support.spread")

StartWorker = Callable[..., WorkerProcess]

# A busy machine is no reason to fail, and a failure is one that can be drawn again. Hypothesis's own profile of this
# name, which it takes by itself where CI is set, would draw the same examples for ever.
settings.register_profile(
    "ci", deadline=None, print_blob=True, derandomize=False, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def broker() -> Iterator[Mosquitto]:
    """The Mosquitto of this process's tests. They share it, so each uses a project or session names of its own."""
    with Mosquitto() as broker:
        yield broker


@pytest.fixture
def own_broker() -> Iterator[Mosquitto]:
    """A Mosquitto for one test, to kill, stop and start."""
    with Mosquitto() as broker:
        yield broker


@pytest.fixture
def start_worker(broker: Mosquitto) -> Iterator[StartWorker]:
    """Starts workers that serve until the test ends: `start_worker(queue_size=10)`, see `WorkerProcess`.

    On the shared broker unless `broker=` names another.
    """
    with ExitStack() as running:

        def start(model: str | None = None, *, broker: Mosquitto = broker, **options: Any) -> WorkerProcess:
            return running.enter_context(WorkerProcess(broker, model, **options))

        yield start


@pytest.fixture(scope="session")
def starting_worker(broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[WorkerProcess]]:
    """The run's one worker with a real engine, from the moment when it begins to start.

    Whoever asks for this first, and for another engine before `real_worker`, has both started at once: a start takes
    half a minute, and keeps one core busy.
    """
    needs_module("vllm")
    # Hot by default: whoever says nothing gets noise, whoever says 0 must get greedy answers.
    options: dict[str, Any] = {"workers": 64, "rate_limit": "off", "temperature": 2.0, "max_message_bytes": 1_000_000}
    options["http"] = free_port()
    projects = tmp_path_factory.mktemp("real") / "projects.yaml"
    projects.write_text("projects: {real: {}, engine: {response_format: true, tools: true}}\n")
    worker = WorkerProcess(broker, "demo", config=projects, **options)
    with ExitStack() as running, ThreadPoolExecutor(1) as pool:
        start = pool.submit(running.enter_context, worker)
        try:
            yield start
        finally:
            start.exception()


@pytest.fixture
def real_worker(starting_worker: Future[WorkerProcess]) -> WorkerProcess:
    """A worker with the demo model, serving the projects `real` and `engine`. A test may kill it."""
    worker = starting_worker.result()
    if worker.process.poll() is not None:
        worker.stop()  # which closes what is left of it
        worker.start()
    return worker
