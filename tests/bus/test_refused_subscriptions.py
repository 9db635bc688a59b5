"""A subscription that the broker granted once and refuses on a new connection: nobody waits for what he cannot hear."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

import pytest

from inferbus_client import BrokerRefusedError, Client
from inferbus_client.exits import Exit
from support.fake_worker import FakeWorker, WaitForCancel, done
from support.gate import SUBSCRIBE, Gate, Rule, hangs_up, passes, refuses
from support.listener import Listener
from support.mosquitto import Mosquitto
from support.waiting import until
from support.worker import WorkerProcess

_WORKER: Final[dict[str, Any]] = {"project": "unheard", "rate_limit": "off", "mqtt_version": "3.1.1"}


def states(listener: Listener) -> list[str]:
    return [json.loads(heard.payload)["state"] for heard in list(listener.heard)]


def answers(broker: Mosquitto) -> bool:
    with Listener(broker, "unheard/assistant_response/#") as listener:
        listener.publish("unheard/user_input/s1", "hi")
        until(lambda: listener.heard)
        return listener.heard[0].text == "hi"


def test_a_worker_that_hears_nothing_is_not_ready_until_it_hears_again(own_broker: Mosquitto) -> None:
    with (
        Gate(own_broker.port) as gate,
        WorkerProcess(cast("Mosquitto", gate), **_WORKER) as worker,
        Listener(own_broker, f"inferbus/workers/{worker.id}/status") as presence,
    ):
        presence.wait(1)
        gate.rule = refuses("/user_input")
        gate.hang_up()
        until(lambda: states(presence)[-1] == "loading")
        assert "refused a subscription" in worker.log
        gate.rule = passes
        until(lambda: states(presence)[-1] == "ready")
        assert answers(own_broker)
        assert worker.log.count("connection to the broker lost") == 1


@pytest.mark.parametrize(
    "rule", [refuses("/user_input"), hangs_up(SUBSCRIBE, "/user_input")], ids=["says so", "closes"]
)
def test_one_that_never_hears_again_ends_and_says_why(own_broker: Mosquitto, rule: Rule) -> None:
    with (
        Gate(own_broker.port) as gate,
        WorkerProcess(cast("Mosquitto", gate), **_WORKER, broker_timeout="2s") as worker,
    ):
        gate.rule = rule
        gate.hang_up()
        until(lambda: worker.process.poll() is not None)
        assert worker.process.returncode == Exit.BROKER
        errors = [line for line in worker.log.splitlines() if '"level": "error"' in line]
        assert "a subscription" in errors[-1]
        assert "inferbus.daemon" in errors[-1]


@pytest.mark.parametrize("rule", [refuses("/stats"), hangs_up(SUBSCRIBE, "/stats")], ids=["says so", "closes"])
def test_what_a_worker_can_do_without_it_does_without(own_broker: Mosquitto, rule: Rule) -> None:
    """Whoever asks for its stats goes unheard, and nobody else."""
    with (
        Gate(own_broker.port) as gate,
        WorkerProcess(cast("Mosquitto", gate), **_WORKER, broker_timeout="2s") as worker,
        Listener(own_broker, f"inferbus/workers/{worker.id}/status") as presence,
    ):
        presence.wait(1)
        gate.rule = rule
        gate.hang_up()
        until(lambda: "a subscription" in worker.log)
        time.sleep(3)  # more than the time after which a worker that hears no requests ends
        assert worker.process.poll() is None
        assert states(presence)[-1] == "ready"
        assert answers(own_broker)


def test_a_client_that_waits_there_is_told_and_asks_again_later(broker: Mosquitto, fake_worker: FakeWorker) -> None:
    fake_worker.script = lambda request: [WaitForCancel(30 if "long" in request["message"] else 0), done("at last")]
    with (
        Gate(broker.port) as gate,
        Client(gate.url, project=fake_worker.project, mqtt_version="3.1.1", pacing=0, timeout=60) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(client.ask, "long", session="here")
        assert client.ask("short", session="there").text == "at last"
        until(lambda: len(fake_worker.heard) == 2)
        gate.rule = refuses("/here")
        gate.hang_up()
        with pytest.raises(BrokerRefusedError, match="refused a subscription"):
            waiting.result(60)
        with pytest.raises(BrokerRefusedError, match="refused a subscription"):
            client.ask("short", session="here")
        gate.rule = passes
        assert client.ask("short", session="here").text == "at last"
