"""The page in a browser, before a gateway, a broker and a worker of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from support.browser import Browser
from support.inferbus import PROGRAM
from support.mosquitto import HOST, Mosquitto, free_port
from support.needs import needs_module, needs_program
from support.scripts import Running
from support.worker import WorkerProcess

#: What the worker takes for a word. It echoes, so a message's length is how long its answer takes.
PER_WORD: Final = "60ms"


@dataclass(frozen=True)
class Bus:
    """A broker, a worker that serves two projects, and a gateway before them.

    Attributes:
        url: where the gateway serves.
    """

    broker: Mosquitto
    worker: WorkerProcess
    url: str


@pytest.fixture
def gateway_options() -> list[str]:
    return []


@pytest.fixture
def worker_options() -> dict[str, Any]:
    return {}


@pytest.fixture
def bus(
    own_broker: Mosquitto, tmp_path: Path, worker_options: dict[str, Any], gateway_options: list[str]
) -> Iterator[Bus]:
    needs_program("chromium")
    needs_program("node")
    needs_module("uvicorn")
    settings = tmp_path / "projects.yaml"
    settings.write_text("projects: {general: {}, robots: {}}\n")
    options = {"simulated_per_token": PER_WORD, "simulated_capacity": 2, "queue_size": 40, **worker_options}
    port = free_port()
    gateway = [PROGRAM, "gateway", "--broker", own_broker.url, "--listen", f"{HOST}:{port}", *gateway_options]
    with (
        WorkerProcess(
            own_broker, worker_id="gpu-1", config=settings, rate_limit="off", drain_timeout="0s", **options
        ) as worker,
        Running([str(part) for part in gateway]) as running,
    ):
        running.says("inferbus gateway at")
        yield Bus(own_broker, worker, f"http://{HOST}:{port}/")


@pytest.fixture
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser
