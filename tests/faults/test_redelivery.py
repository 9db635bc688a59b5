"""What comes again after a reconnect, with --ack after-reply: cancels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import pytest

from support.fault_proxy import FaultProxy
from support.listener import Listener
from support.mosquitto import Mosquitto
from support.requester import Requester
from support.waiting import until
from support.worker import WorkerProcess

_OPTIONS: Final[dict[str, Any]] = {"ack": "after-reply", "rate_limit": "off", "reply_qos": 1, "stats_interval": "100ms"}


@pytest.fixture
def proxy(own_broker: Mosquitto) -> Iterator[FaultProxy]:
    with FaultProxy(own_broker.port) as proxy:
        yield proxy


def figures(worker: WorkerProcess) -> dict[str, Any]:
    """The latest line of stats in the log."""
    lines = [json.loads(line) for line in worker.log.splitlines() if line.startswith("{") and line.endswith("}")]
    return next((line for line in reversed(lines) if line.get("event") == "stats"), {})


def has_ended_and_runs(worker: WorkerProcess, errors: int) -> bool:
    now = figures(worker)
    return (now.get("errors"), now.get("active")) == (errors, 1)


def test_a_cancel_that_comes_again_hits_no_later_request(
    own_broker: Mosquitto, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Its acknowledgement was lost on the way out, and the session has a new request meanwhile."""
    options = {**_OPTIONS, "state_dir": tmp_path, "simulated_per_token": "10m"}
    with (
        WorkerProcess(cast("Mosquitto", proxy), project="cancel", **options) as worker,
        Requester(own_broker, "cancel") as requester,
        Listener(own_broker) as publisher,
    ):
        first = requester.send("one two", session="s1")
        until(lambda: requester.ledger.rows[first].accepted)
        proxy.way_out = 0
        publisher.publish("cancel/cancel/s1", "")
        until(partial(has_ended, worker, 1))
        second = requester.send("one two", session="s1")
        until(partial(has_ended_and_runs, worker, 1))
        proxy.reset_all()
        proxy.way_out = None
        until(lambda: requester.ledger.rows[second].accepted)
        other = requester.send("one two", session="s2")  # comes behind all that comes again
        until(lambda: requester.ledger.rows[other].accepted)
        assert requester.ledger.rows[first].ends == ["cancelled"]
        assert requester.ledger.rows[second].ends == []
        for session in ("s1", "s2"):
            publisher.publish(f"cancel/cancel/{session}", "")
        requester.settle()


def has_ended(worker: WorkerProcess, errors: int) -> bool:
    return figures(worker).get("errors") == errors
