"""`inferbus stress --find-concurrency` on a real worker with a simulated engine, and where the curve is hidden."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from support.fake_worker import Act, FakeWorker, WaitForCancel, accepted, delta, done, error
from support.inferbus import PROGRAM, environment, inferbus
from support.mosquitto import Mosquitto
from support.waiting import until
from support.worker import WorkerProcess

FIND = ("stress", "--find-concurrency", "--settle", "0s", "--num-warmups", "0", "--prompt", "one two three")
#: 0.5 s for an answer of seven words; two more at once wait for a free place.
PACE: Mapping[str, Any] = {"simulated_first_token": "200ms", "simulated_per_token": "150ms", "simulated_capacity": 4}


@pytest.mark.slow
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


def test_ctrl_c_leaves_what_was_measured(way: tuple[str, ...], fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda request: quick(request) if len(fake_worker.heard) <= 2 else [WaitForCancel(20)]
    command = [PROGRAM, *FIND, *way, "--messages", "2", "--json"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        until(lambda: len(fake_worker.heard) == 4)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    figures = json.loads(output)
    assert process.returncode == 130
    assert [(level["clients"], level["answered"]) for level in figures["levels"]] == [(1, 2), (2, 0)]
    assert figures["recommended"]["concurrency"] == 1
