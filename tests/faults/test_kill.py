"""Trials 12 and 14: a worker that is killed in the middle of its work, and a message that kills its worker."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from inferbus_client import Client
from inferbus_client.errors import RequestTimeoutError
from support.mosquitto import Mosquitto
from support.requester import Requester
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

_OUTSTANDING: Final = 20
#: A worker is killed at a random moment this long after its start, so sometimes while it still starts.
_LATEST: Final = 2.0
_ENDLESS: Final[dict[str, Any]] = {"simulated_per_token": "10m"}
_SLOW: Final[dict[str, Any]] = {"simulated_first_token": "20ms", "simulated_per_token": "20ms"}


def after_reply(state_dir: Path, **options: Any) -> dict[str, Any]:
    """Options of a worker that acknowledges after its reply."""
    chosen = {"ack": "after-reply", "state_dir": state_dir, "session_expiry": "1h", "rate_limit": "off"}
    return {**chosen, "drain_timeout": "5s", **options}


def test_sigkill_at_random_points_loses_nothing(
    own_broker: Mosquitto, tmp_path: Path, report: Callable[..., None]
) -> None:
    """Trial 12, QoS 1: at least once. Requests never stop coming; the worker dies and comes back, again and again."""
    points, recoveries = size(6, 200), []
    options = after_reply(tmp_path, max_attempts=1000, **_SLOW)
    with WorkerProcess(own_broker, project="kill", **options) as worker, Requester(own_broker, "kill") as requester:
        requester.answer_with_another()
        for _ in range(_OUTSTANDING):
            requester.send()
        for _ in range(points):
            kill_somewhere(worker)
            recoveries.append(recovery(worker, requester))
        requester.stop_sending()
        requester.settle()
        tally = requester.ledger.tally()
        worst = max(recoveries)
        report(12, f"{points} points, slowest first reply after a kill {worst:.1f} s", requester.ledger)
    assert tally["sent"] > _OUTSTANDING
    assert (tally["lost"], tally["corrupt"], tally["leaked"]) == (0, 0, 0)
    assert set(requester.ledger.outcomes) == {"done"}


def kill_somewhere(worker: WorkerProcess) -> None:
    """SIGKILL; `kill` fails where a process of the worker's is left."""
    time.sleep(random.uniform(0, _LATEST))  # noqa: S311 - no secret
    worker.kill()


def recovery(worker: WorkerProcess, requester: Requester) -> float:
    """Start it again; one time in three it dies before it is ready. Seconds from the last kill to the next reply."""
    if random.random() < 1 / 3:  # noqa: S311 - no secret
        worker.process = worker._popen()
        kill_somewhere(worker)
    killed = time.monotonic()
    before = requester.ledger.replies
    worker.start()
    until(lambda: requester.ledger.replies > before)
    return time.monotonic() - killed


def test_sigkill_at_qos_0_is_a_timeout_of_the_client(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 12, QoS 0: the request is lost with its worker, and the client says so."""
    with WorkerProcess(own_broker, project="kill", **_ENDLESS) as worker:
        with Client(own_broker.url, project="kill") as client:
            call = client.stream("one two", timeout=4)
            time.sleep(1)
            worker.kill()
            began = time.monotonic()
            with pytest.raises(RequestTimeoutError):
                list(call)
        report(12, f"QoS 0: the client's timeout, {time.monotonic() - began:.1f} s after the kill")


def test_a_poison_message_is_set_aside(own_broker: Mosquitto, tmp_path: Path, report: Callable[..., None]) -> None:
    """Trial 14: its turn ends its worker each time; after three times it is answered with an error."""
    attempts = 3
    options = after_reply(tmp_path, max_attempts=attempts, **_ENDLESS)
    with WorkerProcess(own_broker, project="poison", **options) as worker, Requester(own_broker, "poison") as requester:
        request = requester.send("one two")
        for number in range(attempts):
            if number:
                worker.start()
            wait_until_accepted(requester, request, number + 1)
            until(partial(turns_begun, tmp_path / f"{worker.id}.sqlite", number))
            worker.kill()
        worker.start()
        requester.settle()
        fine = requester.send("fine")
        requester.settle()
        assert requester.ledger.rows[request].ends == ["engine_error"]
        assert requester.ledger.rows[fine].ends == ["done"]
        assert "set aside a message" in worker.log
        worker.stop()
        worker.start()  # the broker has it no more
        assert requester.ledger.tally()["duplicate"] == 0
        report(14, f"set aside after {attempts} turns that ended their worker", requester.ledger)


def wait_until_accepted(requester: Requester, request: str, times: int) -> None:
    """Until the request has been accepted `times` times."""
    row = requester.ledger.rows[request]
    until(lambda: row.accepted >= times)


def turns_begun(file: Path, times: int) -> bool:
    """Whether so many turns of what was delivered again have begun, by the worker's own count."""
    with closing(sqlite3.connect(file)) as database:
        [(count,)] = database.execute("SELECT COALESCE(SUM(count), 0) FROM attempts").fetchall()
    return bool(count >= times)
