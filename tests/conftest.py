"""Fixtures for every test: a real broker, real workers, and a watch over processes that are left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from support.mosquitto import Mosquitto
from support.processes import adopt_orphans, assert_gone, descendants
from support.worker import WorkerProcess

StartWorker = Callable[..., WorkerProcess]


def pytest_sessionstart() -> None:
    adopt_orphans()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that leaves a process behind has failed, whatever its tests said."""
    try:
        assert_gone(descendants())
    except AssertionError as error:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.get_terminal_writer().line(f"\nThe tests left processes behind; {error}", red=True)


@pytest.fixture(scope="session")
def broker() -> Iterator[Mosquitto]:
    """The run's Mosquitto. Tests share it, so each uses a project or session names of its own."""
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
