"""The attempts' file, with --ack after-reply: locked by somebody else, and many requests that look the same."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from support.listener import Listener
from support.mosquitto import Mosquitto
from support.requester import Requester
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

_OPTIONS: Final[dict[str, Any]] = {"ack": "after-reply", "rate_limit": "off", "max_attempts": 3}
_FAILED: Final = "Error: The model failed to answer."


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Somebody else writes in the file, and takes his time."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.slow
def test_a_locked_attempts_file_holds_up_no_request(own_broker: Mosquitto, tmp_path: Path) -> None:
    """Requests that the broker delivers again are counted before their turn; where they cannot be, they still run."""
    options = {**_OPTIONS, "state_dir": tmp_path, "workers": 1, "simulated_first_token": "200ms"}
    with (
        WorkerProcess(own_broker, project="locked", **options) as worker,
        Requester(own_broker, "locked") as requester,
    ):
        asked = [requester.send(session=f"s{number}") for number in range(8)]
        until(lambda: requester.ledger.heard_of == len(asked))
        worker.kill()
        worker.start()
        with locked(tmp_path / f"{worker.id}.sqlite"):
            requester.settle()
            again = [requester.send(session=f"s{number}") for number in range(8)]
            requester.settle()
        assert {end for request in asked + again for end in requester.ledger.rows[request].ends} == {"done"}
        assert worker.log.count("cannot be used") <= 1


def test_equal_requests_are_counted_one_by_one(own_broker: Mosquitto, tmp_path: Path) -> None:
    """Everybody asks the same, and the worker is killed once: none of them is to blame."""
    count = size(300, 900)
    options = {**_OPTIONS, "state_dir": tmp_path, "workers": 8, "simulated_first_token": "20ms"}
    with (
        WorkerProcess(own_broker, project="same", **options) as worker,
        Listener(own_broker, "same/assistant_response/#") as listener,
    ):
        for _ in range(count):
            listener.publish("same/user_input", "status?", qos=1)
        listener.wait(20)
        worker.kill()
        worker.start()
        listener.wait(count)
        assert "set aside" not in worker.log
        assert {message.text for message in listener.heard} == {"status?"}
