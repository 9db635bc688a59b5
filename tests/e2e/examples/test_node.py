"""examples/node asks a real worker over MQTT 5, and its exit status says what became of it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.example_bus import LIMITED, LONG, OPEN, PER_WORD, ExampleBus, copy
from support.inferbus import environment
from support.mosquitto import Mosquitto, free_port
from support.needs import needs_program
from support.node import with_packages
from support.scripts import Running
from support.worker import WorkerProcess

pytestmark = pytest.mark.timeout(700)  # npm may have to install what the tests need


@pytest.fixture
def example(tmp_path: Path) -> Path:
    needs_program("node")
    return copy("node", tmp_path, with_packages())


def ask(
    example: Path, bus: ExampleBus, *arguments: str, project: str = OPEN, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = ["node", str(example / "ask.mjs"), *arguments]
    env = bus.environment(project) | environment
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=100, check=False)


def test_it_prints_the_answer_and_no_control_character_of_it(example: Path, bus: ExampleBus) -> None:
    run = ask(example, bus, "naïve “words”\nand \x1b[2J more", "node-answer")
    assert (run.returncode, run.stdout, run.stderr) == (0, "naïve “words”\nand [2J more\n", "")


def test_it_prints_while_the_answer_grows_and_ctrl_c_cancels_it(example: Path, bus: ExampleBus) -> None:
    command = ["node", str(example / "ask.mjs"), LONG, "node-cancel"]
    with Running(command, bus.environment()) as asking:
        asking.says("on and on on and on")
        asking.process.send_signal(signal.SIGINT)
        assert asking.wait(60) == 130
        assert "Request cancelled" in asking.err


def test_a_refusal_is_waited_out(example: Path, bus: ExampleBus) -> None:
    runs = [ask(example, bus, word, "node-limited", project=LIMITED) for word in ("one", "two")]
    assert [(run.returncode, run.stdout) for run in runs] == [(0, "one\n"), (0, "two\n")]


def test_a_busy_session_is_given_up_when_the_time_is_over(example: Path, bus: ExampleBus) -> None:
    with bus.busy("node-busy"):
        run = ask(example, bus, "hello", "node-busy", INFERBUS_TIMEOUT="3")
    assert run.returncode == 4
    assert "your previous message is still being processed" in run.stderr


def test_what_would_be_refused_again_ends_it_at_once(example: Path, bus: ExampleBus) -> None:
    run = ask(example, bus, " ")
    assert (run.returncode, run.stdout) == (1, "")
    assert "Invalid request" in run.stderr


def test_nobody_who_answers_and_no_broker_are_told_apart(example: Path, bus: ExampleBus) -> None:
    assert ask(example, bus, "hello", project="nobody", INFERBUS_TIMEOUT="1").returncode == 5
    nowhere = f"mqtt://{bus.broker.host}:{free_port()}"
    assert ask(example, bus, "hello", INFERBUS_BROKER=nowhere).returncode == 3
    assert ask(example, bus).returncode == 2


def test_what_would_never_be_answered_is_not_sent(example: Path, bus: ExampleBus) -> None:
    no_time = ask(example, bus, "hello", INFERBUS_TIMEOUT="soon")
    assert (no_time.returncode, no_time.stderr) == (2, "ask: INFERBUS_TIMEOUT: not a number of seconds: soon\n")
    no_session = ask(example, bus, "hello", "a b", INFERBUS_TIMEOUT="5")
    assert (no_session.returncode, no_session.stderr) == (2, "ask: not a session's id: a b\n")


def test_a_lost_connection_loses_no_answer(
    example: Path, own_broker: Mosquitto, start_worker: Callable[..., WorkerProcess]
) -> None:
    start_worker(broker=own_broker, simulated_per_token=PER_WORD)
    words = " ".join(f"word-{number}" for number in range(60))
    where = environment(INFERBUS_BROKER=own_broker.url)
    with Running(["node", str(example / "ask.mjs"), words, "node-lost"], where) as asking:
        asking.says("word-3")
        own_broker.restart()
        assert asking.wait(90) == 0
        assert asking.out.endswith(f"{words}\n")
