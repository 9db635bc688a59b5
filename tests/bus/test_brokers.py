"""The whole contract on every broker that we name: Mosquitto, also over WebSocket, NATS, RabbitMQ and amqtt."""

from __future__ import annotations

import json
import re
import signal
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

import pytest

from inferbus_client.client import Client
from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence, decode_announcement
from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Incoming
from inferbus_client.mqtt.options import LinkOptions
from support.inferbus import inferbus
from support.mosquitto import Mosquitto
from support.needs import needs_module
from support.other_brokers import MosquittoOverWebSocket, Nats, RabbitMq
from support.scripts import ROOT
from support.streams import text
from support.waiting import until
from support.worker import starting

pytestmark = pytest.mark.timeout(300)


class Broker(Protocol):
    """Something that is there, at a URL."""

    @property
    def url(self) -> str: ...


def last_word(broker: Broker, worker: str) -> str | None:
    """What the broker keeps of a worker's presence."""
    kept: list[Incoming] = []
    link = Link(LinkOptions(BrokerUrl.parse(broker.url), f"looker-{uuid.uuid4().hex[:8]}"), on_message=kept.append)
    link.connect(10)
    try:
        link.subscribe({topics.presence(worker): 1})
        until(lambda: kept)
    finally:
        link.close()
    presence = decode_announcement(Presence, kept[-1].payload)
    return None if presence is None else presence.state


def amqtt() -> AbstractContextManager[Any]:
    needs_module("amqtt")
    from inferbus_worker.demo.embedded_broker import EmbeddedBroker  # noqa: PLC0415 - may be missing

    return EmbeddedBroker()


BROKERS: Final[dict[str, tuple[Callable[[], AbstractContextManager[Any]], set[str]]]] = {
    "Mosquitto": (Mosquitto, {"3.1.1", "5"}),
    "Mosquitto over WebSocket": (MosquittoOverWebSocket, {"3.1.1", "5"}),
    "NATS": (Nats, {"3.1.1"}),
    "RabbitMQ": (RabbitMq, {"3.1.1"}),
    "amqtt": (amqtt, {"3.1.1"}),
}


@pytest.mark.parametrize("name", BROKERS)
def test_the_contract_holds_on_it(name: str) -> None:
    make, versions = BROKERS[name]
    with make() as broker, starting(broker, "--worker-id", "w1") as worker:
        worker.says("ready: serving", 120)
        verdicts = played(broker, "w1")
        assert [(one["case"], one["problem"]) for one in verdicts if not one["ok"]] == []
        assert {one["mqtt"] for one in verdicts} == versions
        with Client(broker.url, pacing=0) as client, client.stream("one two three") as stream:
            assert "".join(text(part) for part in stream)
        worker.process.send_signal(signal.SIGKILL)
        worker.process.wait(60)
        until(lambda: last_word(broker, "w1") == "offline")  # its Last Will, kept for whoever comes


def test_what_was_seen_stands_in_the_readme() -> None:
    rows = re.findall(r"^\| (\w[^|]*?) *\|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert set(BROKERS) <= {row.split(" (")[0] for row in rows}


def played(broker: Broker, worker: str) -> list[dict[str, Any]]:
    way = ("--broker", broker.url, "--worker", worker, "--timeout", "60s")
    run = inferbus("conformance", *way, "--json", timeout=240)
    assert run.returncode in {0, 1}, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]
