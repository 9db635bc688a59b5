"""The client alone, as the README installs it: for a device, and with its commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from support.installation import QUESTION, Installation
from support.mosquitto import Mosquitto
from support.readme import blocks

StartWorker = Callable[..., Any]

pytestmark = pytest.mark.slow

#: What a slim installation has no use for.
OF_THE_COMMAND: Final = {"click", "rich", "prompt_toolkit", "pygments", "matplotlib"}


@pytest.fixture(scope="module")
def installations(tmp_path_factory: pytest.TempPathFactory) -> list[Installation]:
    """One for each line of the README's block: the slim one, and the one with the commands."""
    lines = [line for block in blocks("install") for line in block.splitlines()]
    return [Installation(tmp_path_factory.mktemp("venv") / str(number), line) for number, line in enumerate(lines)]


@pytest.fixture
def slim(installations: list[Installation]) -> Installation:
    return installations[0]


@pytest.fixture
def with_commands(installations: list[Installation]) -> Installation:
    return installations[1]


def test_a_slim_client_asks(slim: Installation, broker: Mosquitto, start_worker: StartWorker) -> None:
    start_worker(project="slim")
    asked = slim.run("python", "-c", QUESTION, broker.url, "slim")
    assert asked.stdout == "one question\n", asked.stderr
    assert "inferbus_client" in slim.packages
    assert not slim.packages & OF_THE_COMMAND


@pytest.mark.parametrize("arguments", [(), ("ask", "hello"), ("--help",), ("serve", "demo")])
def test_its_command_says_what_to_install(slim: Installation, arguments: tuple[str, ...]) -> None:
    for run in (slim.run("inferbus", *arguments), slim.run("python", "-m", "inferbus_client", *arguments)):
        assert (run.returncode, run.stdout) == (2, "")
        assert (
            run.stderr == "inferbus: the commands are not installed here: in a checkout, pip install './client[cli]'\n"
        )


def test_a_client_with_commands_asks_too(
    with_commands: Installation, broker: Mosquitto, start_worker: StartWorker
) -> None:
    start_worker(project="commands")
    for program in (("inferbus",), ("python", "-m", "inferbus_client")):
        asked = with_commands.run(*program, "ask", "hello", "--broker", broker.url, "--project", "commands")
        assert asked.stdout == "hello\n", asked.stderr


@pytest.mark.parametrize("verb", ["serve", "demo", "estimate", "state"])
def test_the_worker_s_verbs_say_what_to_install(with_commands: Installation, verb: str) -> None:
    run = with_commands.run("inferbus", verb)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.splitlines() == [
        f"inferbus: {verb} comes with the worker: in a checkout of Inferbus, scripts/setup installs it"
    ]
    assert "No such command" in with_commands.run("inferbus", "dance").stderr
