"""Trials 28 and 33: nothing of one session reaches another, and no secret reaches a log, a metric or a command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from support.listener import Listener
from support.mosquitto import Mosquitto
from support.processes import family
from support.requester import Requester
from support.trials import size
from support.worker import WorkerProcess

_CANARIES = 200
_ROUNDS = 5
_SECRET = "hunter2-do-not-print"  # noqa: S105 - no secret of anybody's


def test_canaries_stay_in_their_sessions(broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 28: 200 sessions at once, each with texts of its own length: a prompt's length tells its history."""
    batches = size(1, 200)
    with (
        WorkerProcess(broker, project="canary", rate_limit="off", max_sessions=_CANARIES, workers=16),
        Requester(broker, "canary") as requester,
    ):
        for batch in range(batches):
            sent: list[list[str]] = [[] for _ in range(_CANARIES)]
            for _ in range(_ROUNDS):
                for number, requests in enumerate(sent):
                    requests.append(requester.send(canary(batch, number), session=f"b{batch}-{number}"))
                requester.settle()
            for number, requests in enumerate(sent):
                assert prompts(requester, requests) == expected_prompts(len(canary(batch, number)))
        tally = requester.ledger.tally()
        report(28, f"{batches * _CANARIES} sessions of {_ROUNDS} turns: leaks {tally['leaked']}", requester.ledger)
    assert tally["terminal"] == batches * _CANARIES * _ROUNDS
    assert (tally["lost"], tally["duplicate"], tally["corrupt"], tally["leaked"]) == (0, 0, 0, 0)


def canary(batch: int, number: int) -> str:
    """A text that no other session has, in letters or in length."""
    return f"canary-{batch}-{number}-".ljust(40 + 4 * number, "x")


def prompts(requester: Requester, requests: list[str]) -> list[int | None]:
    return [requester.ledger.rows[request].prompt_tokens for request in requests]


def expected_prompts(length: int) -> list[int]:
    """What the simulated engine counts: all questions and answers (echoes) so far, and the new question."""
    return [(2 * turn + 1) * length // 4 + 1 for turn in range(_ROUNDS)]


@pytest.fixture
def told_a_secret(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerProcess]:
    monkeypatch.setenv("INFERBUS_PASSWORD", _SECRET)
    options: dict[str, Any] = {
        "username": "alice",
        "log_level": "debug",
        "stats_interval": "500ms",
        "max_sessions": 100,
    }
    with WorkerProcess(broker, project="labels", **options) as worker:
        yield worker


def test_logs_metrics_and_secrets(broker: Mosquitto, told_a_secret: WorkerProcess, report: Callable[..., None]) -> None:
    """Trial 33: session ids are no labels, what clients send cannot forge a log line, and no secret is shown."""
    worker, count = told_a_secret, size(2000, 20_000)
    with (
        Requester(broker, "labels") as requester,
        Listener(broker, f"inferbus/workers/{worker.id}/stats") as stats,
        Listener(broker) as publisher,
    ):
        for number in range(count):
            requester.send(f"private-{number}", session=f"label-{number}")
            if number % 200 == 199:
                requester.settle()
        for evil in ("a\nb", '{"event": "forged"}', "\x1b[31m", "\r\n{}"):
            body = {"message": "private", "sessionId": evil, "requestId": evil, "clientId": evil, "replyTopic": evil}
            publisher.publish("labels/user_input", json.dumps(body))
        publisher.publish("labels/user_input/s1", json.dumps({"message": "x", "replyTopic": "a\nforged: b"}))
        sizes = [len(message.payload) for message in stats.wait(len(stats.heard) + 1)[1:]]
        told = b"".join(message.payload for message in stats.heard)
        lines = [json.loads(line) for line in worker.log.splitlines()]
        commands = b"".join(Path(f"/proc/{each.pid}/cmdline").read_bytes() for each in family(worker.pid))
    everything = worker.log + told.decode() + commands.decode()
    report(33, f"{count} session ids: stats of {max(sizes)} bytes, {len(lines)} log lines, secrets shown 0")
    assert _SECRET not in everything
    assert "private" not in everything
    assert "label-" not in told.decode()
    assert all({"event", "level"} <= line.keys() for line in lines)
    assert not any(line["event"] == "forged" or line["event"].startswith("forged") for line in lines)
    assert all(abs(after - before) < 200 for before, after in pairwise(sizes))
