"""examples/shell asks a real worker, and its exit status says what became of it."""

from __future__ import annotations

import subprocess

import pytest

from support.example_bus import EXAMPLES, LIMITED, OPEN, ExampleBus
from support.listener import Listener
from support.mosquitto import free_port
from support.needs import needs_program
from support.waiting import until


def ask(bus: ExampleBus, *arguments: str, project: str = OPEN, **environment: str) -> subprocess.CompletedProcess[str]:
    needs_program("mosquitto_rr")
    env = bus.environment(project) | environment
    command = [str(EXAMPLES / "shell/ask"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=100, check=False)


def test_it_prints_the_answer_whatever_the_message_is_made_of(bus: ExampleBus) -> None:
    message = 'a "quoted" word,\na \\ and a\ttab; naïve {"json": 1}'
    run = ask(bus, "-s", "shell-answer", message)
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{message}\n", "")


def test_a_refusal_is_waited_out(bus: ExampleBus) -> None:
    runs = [ask(bus, "-s", "shell-limited", word, project=LIMITED) for word in ("one", "two")]
    assert [(run.returncode, run.stdout) for run in runs] == [(0, "one\n"), (0, "two\n")]
    assert "Rate limit exceeded" in runs[1].stderr


def test_a_busy_session_is_given_up_when_the_time_is_over(bus: ExampleBus) -> None:
    with bus.busy("shell-busy"):
        run = ask(bus, "-s", "shell-busy", "-t", "6", "hello")
    assert run.returncode == 4
    assert "your previous message is still being processed" in run.stderr


def test_what_would_be_refused_again_ends_it_at_once(bus: ExampleBus) -> None:
    run = ask(bus, "word " * 20_000)
    assert (run.returncode, run.stdout) == (1, "")
    assert "Message too large" in run.stderr


def test_an_answer_that_takes_too_long_is_cancelled(bus: ExampleBus) -> None:
    with Listener(bus.broker, f"{OPEN}/assistant_response/shell-slow/#") as listener:
        run = ask(bus, "-s", "shell-slow", "-t", "2", "on and on " * 100)
        until(lambda: listener.heard)
    assert run.returncode == 5
    assert listener.heard[0].text in {"Error: Request cancelled.", "Error: Deadline exceeded."}


def test_nobody_who_answers_and_no_broker_are_told_apart(bus: ExampleBus) -> None:
    assert ask(bus, "-t", "1", "hello", project="nobody").returncode == 5
    assert ask(bus, "hello", MQTT_PORT=str(free_port())).returncode == 3


@pytest.mark.parametrize("arguments", [(), ("-x", "hello"), ("-h",)])
def test_it_says_how_it_is_used(bus: ExampleBus, arguments: tuple[str, ...]) -> None:
    run = ask(bus, *arguments)
    assert run.returncode == 2
    assert "ask [-s SESSION] [-t SECONDS] MESSAGE..." in run.stderr


@pytest.mark.parametrize(
    ("arguments", "wrong"), [(("-t", "soon"), "-t: not a number"), (("-s", "a b"), "-s: not an id")]
)
def test_what_would_never_be_answered_is_not_sent(bus: ExampleBus, arguments: tuple[str, ...], wrong: str) -> None:
    run = ask(bus, *arguments, "hello")
    assert run.returncode == 2
    assert wrong in run.stderr
