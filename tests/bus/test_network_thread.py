"""The network thread waits for nothing: a stuck tokenizer, or a stuck disk, holds up who needs it and nobody else."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from inferbus_client.contract import topics
from support.listener import Heard, Listener
from support.mosquitto import Mosquitto
from support.waiting import until
from support.worker import WorkerProcess

_STUCK_WORKER: Final = str(Path(__file__).with_name("stuck_worker.py"))
_KEEPALIVE: Final = 5
#: Longer than a broker waits for a client that has gone silent: one and a half times the keepalive.
_LONG: Final = 8.0


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Path]:
    """The file that keeps the worker's part stuck: what is seen while it is there has not waited for that part."""
    file = tmp_path / "stuck"
    file.touch()
    yield file
    file.unlink(missing_ok=True)


@contextmanager
def stuck_worker(broker: Mosquitto, part: str, stuck: Path, **options: Any) -> Iterator[WorkerProcess]:
    program = (sys.executable, _STUCK_WORKER, part, str(stuck))
    options = {"project": "stuck", "keepalive": _KEEPALIVE, "rate_limit": "off", **options}
    with WorkerProcess(broker, program=program, **options) as worker:
        try:
            yield worker
        finally:
            stuck.unlink(missing_ok=True)  # else it would not end


def ask(listener: Listener, session: str, message: str, **fields: object) -> None:
    body = {"message": message, "reply": "json", "requestId": session, **fields}
    listener.publish(f"stuck/user_input/{session}", json.dumps(body))


def replies(listener: Listener, session: str) -> list[tuple[Heard, dict[str, Any]]]:
    heard = [each for each in listener.heard if each.topic.endswith(f"/{session}")]
    return [(each, json.loads(each.payload)) for each in heard]


def is_over(listener: Listener, session: str) -> Callable[[], bool]:
    return lambda: any(reply["type"] in {"done", "error"} for _, reply in replies(listener, session))


def test_a_stuck_tokenizer_holds_up_neither_streams_nor_the_keepalive(own_broker: Mosquitto, stuck: Path) -> None:
    options = {"token_budget": "1000000/60s", "simulated_per_token": "100ms", "simulated_first_token": "100ms"}
    with (
        stuck_worker(own_broker, "tokenizer", stuck, **options) as worker,
        Listener(own_broker, "stuck/assistant_response/+") as listener,
        Listener(own_broker, topics.stats(worker.id)) as stats,
    ):
        ask(listener, "streams", "word " * 150, stream=True)
        until(lambda: len(replies(listener, "streams")) > 2)
        ask(listener, "waits", "stuck here")
        began, asked = time.monotonic(), len(stats.heard)
        stats.publish(topics.stats_request(worker.id), b"")
        until(lambda: len(stats.heard) > asked)
        while time.monotonic() - began < _LONG:
            so_far = len(replies(listener, "streams"))
            until(lambda so_far=so_far: len(replies(listener, "streams")) > so_far)  # type: ignore[misc]
        assert replies(listener, "waits") == []
        stuck.unlink()
        until(is_over(listener, "waits"))
        until(is_over(listener, "streams"))
        assert [reply["type"] for _, reply in replies(listener, "waits")] == ["accepted", "done"]
        assert "connection to the broker lost" not in worker.log


def test_what_comes_over_the_bound_of_the_intake_is_refused_meanwhile(own_broker: Mosquitto, stuck: Path) -> None:
    options = {"token_budget": "1000000/60s", "max_intake_bytes": "128KiB"}
    with (
        stuck_worker(own_broker, "tokenizer", stuck, **options) as worker,
        Listener(own_broker, "stuck/assistant_response/+") as listener,
    ):
        ask(listener, "first", "stuck here")
        for number in range(40):
            ask(listener, f"s{number}", "x" * 10_000)
        until(lambda: len(listener.heard) > 10)
        assert {json.loads(each.payload)["code"] for each in listener.heard} == {"overloaded"}
        stuck.unlink()
        until(lambda: all(is_over(listener, f"s{number}")() for number in range(40)))
        until(is_over(listener, "first"))
        assert worker.process.poll() is None


def test_a_stuck_disk_holds_up_neither_replies_nor_the_keepalive(
    own_broker: Mosquitto, stuck: Path, tmp_path: Path
) -> None:
    """Turns that are delivered again are counted on disk, and wait for it, but not for long; nobody else does."""
    options = {"ack": "after-reply", "state_dir": tmp_path, "simulated_first_token": "1s", "reply_qos": 1}
    with (
        stuck_worker(own_broker, "disk", stuck, **options) as worker,
        Listener(own_broker, "stuck/assistant_response/+") as listener,
    ):
        for number in range(4):
            ask(listener, f"again{number}", "hello")
        until(lambda: len(listener.heard) >= 4)  # each is accepted
        worker.kill()
        worker.start()
        began = time.monotonic()
        ask(listener, "other", "hello")
        until(is_over(listener, "other"))
        until(lambda: all(is_over(listener, f"again{number}")() for number in range(4)))
        time.sleep(max(0.0, _LONG - (time.monotonic() - began)))
        ask(listener, "later", "hello")
        until(is_over(listener, "later"))
        assert "connection to the broker lost" not in worker.log
