"""Trial 54: a batch whose worker is killed in the middle, and whose own process is; every request has one answer."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.batch_files import read, request, texts, write
from support.inferbus import PROGRAM, environment
from support.mosquitto import Mosquitto
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

#: Of the requests: where the worker is killed, and the batch.
_FIRST, _SECOND = 0.3, 0.6


@contextmanager
def batch(
    broker: Mosquitto, requests: Path, answers: Path, *more: str, project: str = "batch"
) -> Iterator[subprocess.Popen[str]]:
    command = [PROGRAM, "batch", str(requests), "-o", str(answers), "--broker", broker.url, "--project", project, *more]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_worker_killed_in_the_middle_and_then_the_batch_itself(
    own_broker: Mosquitto, tmp_path: Path, report: Callable[..., None]
) -> None:
    total = size(300, 10_000)
    requests = write(tmp_path / "requests.jsonl", (request(f"r{n}", f"number {n}") for n in range(total)))
    answers = tmp_path / "answers.jsonl"
    # As many at once as the worker says: many in flight whenever it is killed, and not all done before that.
    options: dict[str, Any] = {"simulated_first_token": "400ms", "simulated_capacity": size(32, 64)}
    began = time.monotonic()
    with WorkerProcess(own_broker, project="batch", rate_limit="off", **options) as worker:
        with batch(own_broker, requests, answers) as first:
            until(lambda: lines_in(answers) >= _FIRST * total, 600)
            worker.kill()
            answered = lines_in(answers)
            killed = time.monotonic()
            worker.start()
            until(lambda: lines_in(answers) > answered, 60)
            recovery = time.monotonic() - killed
            until(lambda: lines_in(answers) >= _SECOND * total, 600)
            first.kill()
        with answers.open("ab") as file:
            file.write(b'{"id": "batch_req_torn in the mid')
        with batch(own_broker, requests, answers) as second:
            _, said = second.communicate(timeout=600)
        assert second.returncode == 0, said
        took = time.monotonic() - began
    assert texts(answers) == {f"r{n}": f"number {n}" for n in range(total)}
    assert read(tmp_path / "answers.errors.jsonl") == []
    report(54, f"{total} requests, {total} answers in {took:.0f} s; the next one {recovery:.1f} s after the kill")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_worker_with_a_real_engine_killed_in_the_middle(
    broker: Mosquitto, real_worker: WorkerProcess, tmp_path: Path, report: Callable[..., None]
) -> None:
    total = size(400, 10_000)
    asked = (request(f"r{n}", f"My name is Zorvek {n}", temperature=0, max_tokens=16) for n in range(total))
    requests = write(tmp_path / "requests.jsonl", asked)
    answers = tmp_path / "answers.jsonl"
    began = time.monotonic()
    with batch(broker, requests, answers, project="real") as process:
        until(lambda: lines_in(answers) >= total / 2, 900)
        real_worker.kill()
        answered = lines_in(answers)
        real_worker.start()
        _, said = process.communicate(timeout=900)
    took = time.monotonic() - began
    assert process.returncode == 0, said
    assert answered < total
    assert texts(answers).keys() == {f"r{n}" for n in range(total)}
    assert all(texts(answers).values())
    assert read(tmp_path / "answers.errors.jsonl") == []
    report(54, f"demo model: {total} requests, {total} answers in {took:.0f} s, killed at {answered}")


@pytest.mark.slow
def test_a_broker_that_goes_and_comes_back(own_broker: Mosquitto, tmp_path: Path) -> None:
    total = 200
    requests = write(tmp_path / "requests.jsonl", (request(f"r{n}", f"number {n}") for n in range(total)))
    answers = tmp_path / "answers.jsonl"
    options: dict[str, Any] = {"simulated_first_token": "400ms", "simulated_capacity": 16}
    with (
        WorkerProcess(own_broker, project="batch", rate_limit="off", **options),
        batch(own_broker, requests, answers, "--first-timeout", "2s") as process,
    ):
        until(lambda: lines_in(answers) >= total / 4, 60)
        own_broker.kill()
        own_broker.start()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert texts(answers) == {f"r{n}": f"number {n}" for n in range(total)}
