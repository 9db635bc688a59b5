"""What `inferbus serve` tells whoever sits before it."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from inferbus_client.contract import topics
from inferbus_client.exits import Exit
from support.inferbus import inferbus
from support.listener import Listener
from support.mosquitto import Mosquitto, mosquitto_pub
from support.waiting import until
from support.worker import WorkerProcess


@pytest.mark.slow
def test_the_first_ctrl_c_says_what_it_waits_for_and_that_a_second_forces(broker: Mosquitto) -> None:
    slow: dict[str, Any] = {"simulated_first_token": "8s", "drain_timeout": "15s"}
    with (
        WorkerProcess(broker, project="ctrl-c", **slow) as worker,
        Listener(broker, topics.assistant_response("ctrl-c", "s1") + "/#") as listener,
    ):
        request = {"message": "hello", "reply": "json"}
        mosquitto_pub(broker, topics.user_input("ctrl-c", "s1"), json.dumps(request))
        listener.wait(1)  # accepted
        worker.process.send_signal(signal.SIGINT)
        until(lambda: "draining" in worker.log)
        (line,) = [event for event in map(json.loads, worker.log.splitlines()) if event["event"].startswith("draining")]
        assert line["event"] == "draining: 1 in flight, for at most 15s; a second signal ends at once"
        worker.process.send_signal(signal.SIGINT)
        assert worker.process.wait(60) == 130


def test_a_worker_that_never_served_speaks_of_no_draining_and_of_no_replies(broker: Mosquitto) -> None:
    """Lines about requests in flight and replies that did not arrive stood behind the one that says why it ends."""
    loads = ("--engine", "simulated", "--simulated-first-token", "1m", "--log-format", "json")
    with WorkerProcess(broker, project="served", worker_id="first"):
        for options in (("--project", "served"), ("--project", "other", "--worker-id", "first")):
            second = inferbus("serve", *loads, "--broker", broker.url, *options)
            assert second.returncode == Exit.ID_TAKEN
            assert "draining" not in second.stderr
            assert "not every reply" not in second.stderr
