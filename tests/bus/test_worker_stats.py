"""Stats on demand: whoever asks has them at once, in every state of the worker, and changes nothing by it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Stats, decode_announcement
from support.listener import Listener
from support.mosquitto import Mosquitto, mosquitto_pub, mosquitto_rr
from support.waiting import until
from support.worker import WorkerProcess, starting

OPTIONS: dict[str, Any] = {"rate_limit": "off", "stats_interval": "1h"}


@pytest.fixture(scope="module")
def worker(broker: Mosquitto) -> Iterator[WorkerProcess]:
    with WorkerProcess(broker, project="figures", **OPTIONS) as worker:
        yield worker


def ask(broker: Mosquitto, listener: Listener, worker: str, *options: str) -> Stats:
    """The answer to a question of ours."""
    before = len(listener.heard)
    mosquitto_pub(broker, topics.stats_request(worker), None, *options)
    stats = decode_announcement(Stats, listener.wait(before + 1)[-1].payload)
    assert stats is not None
    return stats


@pytest.mark.parametrize("payload", [None, "anything", b"\xff" * 5000])
def test_they_come_when_somebody_asks(broker: Mosquitto, worker: WorkerProcess, payload: str | bytes | None) -> None:
    with Listener(broker, topics.stats(worker.id)) as listener:
        mosquitto_pub(broker, topics.stats_request(worker.id), payload)
        listener.wait(1)
        assert not listener.heard[0].retain


def test_a_flood_of_questions_has_one_answer_a_second(broker: Mosquitto, worker: WorkerProcess) -> None:
    with Listener(broker, topics.stats(worker.id)) as listener:
        began = time.monotonic()
        for _ in range(500):
            listener.publish(topics.stats_request(worker.id), "", qos=0)
        ask(broker, listener, worker.id)
        ask(broker, listener, worker.id)
        assert len(listener.heard) <= time.monotonic() - began + 2


def test_reading_changes_nothing_and_two_readings_tell_what_lies_between(
    broker: Mosquitto, worker: WorkerProcess
) -> None:
    answer = ("figures/user_input", "figures/assistant_response/s1/r1", '{"sessionId": "s1", "message": "one two"}')
    with Listener(broker, topics.stats(worker.id)) as listener:
        first = ask(broker, listener, worker.id)
        for _ in range(3):
            mosquitto_rr(broker, *answer)
        second, third = ask(broker, listener, worker.id), ask(broker, listener, worker.id)
    assert second.processed == first.processed + 3
    assert second.completion_tokens == first.completion_tokens + 6
    assert second.prompt_tokens > first.prompt_tokens
    assert sum(second.histograms["totalMs"].buckets.values()) == second.processed + second.errors
    assert third.model_copy(update={"uptime_s": second.uptime_s}) == second
    assert second.requests_per_s is None  # no interval has ended


@pytest.mark.slow
def test_a_worker_that_loads_and_one_that_drains_answer_too(broker: Mosquitto) -> None:
    options = ("--worker-id", "slow", "--project", "figures-2", "--simulated-first-token", "6s")
    with (
        Listener(broker, topics.presence("slow")) as presence,
        Listener(broker, topics.stats("slow")) as figures,
        starting(broker, *options) as running,
    ):
        presence.wait(1)
        assert ask(broker, figures, "slow").processed == 0
        assert "ready: serving" not in running.err  # its first answer, by which it knows, takes six seconds
        running.says("ready: serving")
        mosquitto_pub(broker, "figures-2/user_input/s1", "hello")
        until(lambda: ask(broker, figures, "slow").active == 1)
        running.process.send_signal(signal.SIGTERM)
        until(lambda: b'"draining"' in presence.heard[-1].payload)
        assert ask(broker, figures, "slow").active == 1
        assert running.process.wait(60) == 0


def test_what_waits_is_told_by_project(broker: Mosquitto, tmp_path: Path) -> None:
    settings = tmp_path / "projects.yaml"
    settings.write_text("projects: {first: {}, second: {}, third: {}}\n")
    slow: dict[str, Any] = {"config": settings, "simulated_per_token": "10m", "simulated_capacity": 1}
    with (
        WorkerProcess(broker, **OPTIONS, **slow, drain_timeout="0s") as worker,
        Listener(broker, topics.stats(worker.id)) as listener,
    ):
        for project, count in (("first", 3), ("second", 2)):
            for number in range(count):
                mosquitto_pub(broker, f"{project}/user_input/s{number}", "hello there")
        # One of them runs.
        until(lambda: ask(broker, listener, worker.id).queued_by_project == {"first": 2, "second": 2})
