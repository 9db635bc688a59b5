"""examples/robot: a real worker holds the demo model to the form; a scripted backend says what moves it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.example_bus import EXAMPLES
from support.inferbus import environment
from support.mosquitto import HOST, Mosquitto, free_port
from support.stub_backend import Fault, StubBackend

ROBOT = EXAMPLES / "robot/robot.py"


def steered(broker: str, project: str, *orders: str, **settings: str) -> subprocess.CompletedProcess[str]:
    env = environment(INFERBUS_BROKER=broker, INFERBUS_PROJECT=project, **settings)
    command = [sys.executable, str(ROBOT), *orders]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=env, check=False)


@pytest.fixture
def stub() -> Iterator[StubBackend]:
    with StubBackend("vllm") as stub:
        yield stub


@pytest.fixture
def broker_url(own_broker: Mosquitto, stub: StubBackend, start_worker: Callable[..., Any], tmp_path: Path) -> str:
    """Where a worker serves `robots`, which may ask for a form, and `general`, which may not."""
    settings = tmp_path / "projects.yaml"
    settings.write_text("projects: {robots: {response_format: true}, general: {}}\n")
    start_worker("stub", broker=own_broker, backend="vllm", url=stub.url, config=settings, max_retries=0)
    return own_broker.url


def test_commands_move_it_and_what_is_none_does_not(broker_url: str, stub: StubBackend) -> None:
    moves = []
    for answer in ('{"action": "forward", "times": 3}', '{"action": "fly", "times": 1}', "I would rather not."):
        stub.answer = answer
        moves.append(steered(broker_url, "robots", "Go."))
    assert [(run.returncode, run.stdout) for run in moves] == [
        (0, "forward 3: at 0, 3, looking north\n"),
        (1, "standing still, the answer is no command\n"),
        (1, "standing still, the answer is no command\n"),
    ]
    form = stub.requests[-1].body["response_format"]
    assert form["json_schema"]["schema"]["properties"]["times"]["maximum"] == 9


def test_it_turns_and_goes_on_in_one_run(broker_url: str, stub: StubBackend) -> None:
    stub.answer = '{"action": "left", "times": 1}'
    run = steered(broker_url, "robots", "Turn left.", "Again.")
    assert run.stdout.splitlines() == ["left 1: at 0, 0, looking west", "left 1: at 0, 0, looking south"]


def test_a_failure_leaves_it_standing(broker_url: str, stub: StubBackend) -> None:
    assert steered(broker_url, "general", "Go.").stdout.startswith("standing still, invalid_request: ")
    stub.always = Fault(status=500)
    assert steered(broker_url, "robots", "Go.").stdout.startswith("standing still, engine_error: ")
    nowhere = f"mqtt://{HOST}:{free_port()}"
    assert steered(nowhere, "robots", "Go.", INFERBUS_CONNECT_TIMEOUT="1s").returncode == 3


@pytest.mark.usefixtures("real_worker")
def test_a_real_model_is_held_to_the_form(broker: Mosquitto) -> None:
    run = steered(broker.url, "engine", "Go three steps ahead.", "Hello, who are you?")
    assert run.returncode == 0, run.stdout + run.stderr
    for line in run.stdout.splitlines():
        assert re.fullmatch(r"(forward|back|left|right|stop) [1-9]: at -?\d+, -?\d+, looking \w+", line)
    assert len(run.stdout.splitlines()) == 2
