"""`inferbus stress --find-concurrency` on a real worker with a simulated engine, and where the curve is hidden."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from inferbus_client.contract.wire import Code, Failure
from support.fake_worker import Act, FakeWorker, WaitForCancel, accepted, delta, done, error
from support.inferbus import PROGRAM, environment, inferbus
from support.mosquitto import Mosquitto
from support.terminal import in_terminal
from support.waiting import until
from support.worker import WorkerProcess

FIND = ("stress", "--find-concurrency", "--settle", "0s", "--num-warmups", "0", "--prompt", "one two three")
#: 0.5 s for an answer of seven words; two more at once wait for a free place.
PACE: Mapping[str, Any] = {"simulated_first_token": "200ms", "simulated_per_token": "150ms", "simulated_capacity": 4}


@pytest.mark.slow
@pytest.mark.alone  # what others take of the machine is time in which a place of the engine's stays empty
def test_the_knee_is_at_the_engine_s_capacity(own_broker: Mosquitto) -> None:
    with WorkerProcess(own_broker, rate_limit="off", client_rate_limit="off", **PACE):
        way = ("--broker", own_broker.url, "--duration", "2s", "--max-tokens", "3")
        run = inferbus(*FIND, *way, "--json", timeout=120)
        assert run.returncode == 0, run.stderr
        figures = json.loads(run.stdout)
        steps = [level["clients"] for level in figures["levels"]]
        assert steps == sorted(steps)
        assert {1, 2, 4, 8} <= set(steps)
        assert figures["recommended"]["concurrency"] == 4, figures["recommended"]
        assert all(level["lost"] == 0 for level in figures["levels"])
        shown = inferbus(*FIND, *way, "--max-concurrency", "2", timeout=120)
        assert "Recommended concurrency: 2: the least at once that reaches 95%" in " ".join(shown.stdout.split())
        assert "It is the most that was tried" in shown.stdout
        assert all(len(line) <= 80 for line in shown.stdout.splitlines())


def test_a_worker_s_rate_limit_is_honoured_and_said(own_broker: Mosquitto) -> None:
    with WorkerProcess(own_broker, rate_limit="off", client_rate_limit="12/1m", **PACE):
        way = ("--broker", own_broker.url, "--duration", "1s", "--connections", "1")
        run = inferbus(*FIND, *way, timeout=120)
        shown = " ".join(run.stdout.split())
        assert "The worker's rate limit hides the curve from" in shown
        assert "No recommendation" in shown
        assert run.returncode == 1


@pytest.fixture
def way(broker: Mosquitto, fake_worker: FakeWorker) -> tuple[str, ...]:
    return ("--broker", broker.url, "--project", fake_worker.project)


def quick(request: Mapping[str, Any]) -> Iterator[Act]:
    yield accepted()
    yield delta("yes")
    yield done("yes", model=request.get("model"))


def test_each_request_stands_for_itself_and_other_options_hold(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    fake_worker.script = quick
    options = ("--messages", "3", "--max-concurrency", "2", "--model", "phi", "--max-tokens", "5")
    run = inferbus(*FIND, *way, *options, "--json")
    levels = {level["clients"]: level["answered"] for level in json.loads(run.stdout)["levels"]}
    assert levels == {1: 3, 2: 6}
    assert all(heard["messages"] == [{"role": "user", "content": "one two three"}] for heard in fake_worker.heard)
    assert {(heard["model"], heard["maxTokens"]) for heard in fake_worker.heard} == {("phi", 5)}
    assert not [heard for heard in fake_worker.heard if "message" in heard]


def test_where_everything_fails_nothing_is_recommended(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda _: [error("engine_error")]
    run = inferbus(*FIND, *way, "--messages", "2")
    assert run.returncode == 1
    assert "With 1 at once too many were not answered (engine_error 2)." in run.stdout
    assert "No recommendation" in run.stdout
    assert len(fake_worker.heard) == 2
    for term in ("xterm", "dumb"):
        narrow = in_terminal(*FIND, *way, "--messages", "2", columns=40, env={"TERM": term}).text
        assert "With 1 at once too many were not\n  answered" in narrow


@pytest.mark.parametrize("warmups", ["0", "1"])
@pytest.mark.parametrize("code", ["invalid_request", "message_too_large", "context_too_long"])
def test_what_is_wrong_with_every_request_ends_it_at_the_first(
    way: tuple[str, ...], fake_worker: FakeWorker, code: Code, warmups: str
) -> None:
    """It asked for 5 s, thousands of times, and then said that too little was answered."""
    fake_worker.script = lambda _: [error(code)]
    run = inferbus(*FIND, *way, "--model", "nonesuch", "--num-warmups", warmups)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == f"inferbus: {Failure(code).message}\n"
    assert len(fake_worker.heard) == 1


@pytest.mark.parametrize("warmups", ["0", "1"])
def test_where_nobody_serves_the_project_it_says_so_after_one_request(broker: Mosquitto, warmups: str) -> None:
    way = ("--broker", broker.url, "--project", "nobody-serves", "--first-timeout", "300ms", "--num-warmups", warmups)
    run = inferbus(*FIND, *way)
    assert run.returncode == 5
    assert "no first sign of life within 0.3 s. Does a worker serve this project on this broker?" in run.stderr


def test_a_model_that_is_away_is_left_alone_for_as_long_as_the_worker_says(
    way: tuple[str, ...], fake_worker: FakeWorker
) -> None:
    """Refusals come at once: thousands of requests went to a worker that could answer none."""
    fake_worker.script = lambda _: [error("engine_unavailable", retry_after_ms=400)]
    run = inferbus("stress", *way, "--clients", "1", "--messages", "3", "--num-warmups", "0", "--json")
    (level,) = json.loads(run.stdout)["levels"]
    assert level["refused"] == {"engine_unavailable": 3}
    assert level["wall"] > 0.8
    assert inferbus(*FIND, *way, "--duration", "1s").returncode == 1
    assert len(fake_worker.heard) <= 3 + 3


def test_ctrl_c_leaves_what_was_measured(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda request: quick(request) if len(fake_worker.heard) <= 2 else [WaitForCancel(20)]
    command = [PROGRAM, *FIND, *way, "--messages", "2", "--json"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        until(lambda: len(fake_worker.heard) == 4)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    figures = json.loads(output)
    assert process.returncode == 130
    assert [(level["clients"], level["answered"]) for level in figures["levels"]] == [(1, 2), (2, 0)]
    assert figures["recommended"]["concurrency"] == 1
