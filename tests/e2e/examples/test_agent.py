"""examples/agent: a real worker, whose simulated engine calls what the question says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.inferbus import environment
from support.mosquitto import HOST, Mosquitto, free_port
from support.scripts import ROOT

AGENT = ROOT / "examples/agent/agent.py"


def asked(broker: str, question: str, project: str = "greenhouse") -> subprocess.CompletedProcess[str]:
    env = environment(INFERBUS_BROKER=broker, INFERBUS_PROJECT=project, INFERBUS_CONNECT_TIMEOUT="5s")
    command = [sys.executable, str(AGENT), question]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=env, check=False)


def calls(name: str, **arguments: Any) -> str:
    return json.dumps({"name": name, "arguments": arguments})


@pytest.fixture
def broker_url(own_broker: Mosquitto, start_worker: Callable[..., Any], tmp_path: Path) -> str:
    settings = tmp_path / "projects.yaml"
    settings.write_text("projects: {greenhouse: {tools: true}, general: {}}\n")
    start_worker(broker=own_broker, config=settings)
    return own_broker.url


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Hello.", "Hello."),
        (calls("temperature", house="north"), "14.5"),
        (calls("switch_lamps", house="north", on=True), "the lamps of the north house are on now"),
        (calls("switch_lamps", house="south", on=True), "Error: they are on already"),
        (calls("temperature", house="east"), "Error: house: must be 'north' or 'south'"),
        (calls("switch_lamps", house="north"), "Error: on: Missing required keyword only argument"),
    ],
)
def test_it_looks_acts_and_tells(broker_url: str, question: str, answer: str) -> None:
    run = asked(broker_url, question)
    assert (run.returncode, run.stdout) == (0, f"{answer}\n"), run.stderr


def test_where_tools_are_not_allowed_that_is_said(broker_url: str) -> None:
    run = asked(broker_url, "Hello.", project="general")
    assert (run.returncode, run.stdout) == (1, "")
    assert "tools are not allowed in this project" in run.stderr


def test_a_broker_that_is_not_there() -> None:
    run = asked(f"mqtt://{HOST}:{free_port()}", "Hello.")
    assert (run.returncode, run.stdout) == (3, "")
