"""What the doctor finds out about the broker for a group of workers, on real ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from inferbus_client.fleet.broker_checks import tried_for_groups
from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.options import LinkOptions
from support.inferbus import inferbus
from support.members import member
from support.mosquitto import Mosquitto
from support.needs import needs_module
from support.other_brokers import Nats, RabbitMq
from support.worker import WorkerProcess


def amqtt() -> AbstractContextManager[Any]:
    needs_module("amqtt")
    from inferbus_worker.demo.embedded_broker import EmbeddedBroker  # noqa: PLC0415 - may be missing

    return EmbeddedBroker()


LIARS: Final[dict[str, Callable[[], AbstractContextManager[Any]]]] = {
    "NATS": Nats,
    "RabbitMQ": RabbitMq,
    "amqtt": amqtt,
}


def found(url: str, **more: Any) -> str:
    return "\n".join(text for text, _ in tried_for_groups(LinkOptions(BrokerUrl.parse(url), "doctor", **more)))


def test_mosquitto_is_seen_as_it_is(own_broker: Mosquitto) -> None:
    began = time.monotonic()
    text = found(own_broker.url)
    assert time.monotonic() - began < 30
    assert "the broker speaks MQTT 5; it" in text
    assert "shared subscriptions are delivered" in text
    assert "deals blindly: a member that acknowledged nothing was dealt 10 of 20 requests" in text
    assert "Receive Maximum" in text
    assert "9 of 9 requests were lost with a member without a session that died" in text
    assert "wait until it comes back (19 of 19 came then)" in text
    assert "dealt 10 of 20 more while it was away" in text


def test_and_over_the_older_protocol(own_broker: Mosquitto) -> None:
    text = found(own_broker.url, protocol=MQTTProtocolVersion.MQTTv311)
    assert "the broker speaks MQTT 3.1.1" in text
    assert "no worker can say how many requests it takes" in text
    assert "deals blindly" in text


@pytest.mark.parametrize("name", LIARS)
def test_a_broker_that_grants_and_delivers_nothing_is_found_out(name: str) -> None:
    with LIARS[name]() as broker:
        texts = dict(tried_for_groups(LinkOptions(BrokerUrl.parse(broker.url), "doctor")))
    refused = [text for text, advice in texts.items() if "need a broker that can" in advice]
    assert len(refused) == 1, texts


def test_nothing_is_left_on_the_broker_and_no_group_hears_of_it(own_broker: Mosquitto) -> None:
    with member(own_broker, "w1") as worker:
        found(own_broker.url)
        assert worker.dealt == []
    for letter in "pdqs":
        assert not is_known(own_broker, f"doctor-{letter}")


def is_known(broker: Mosquitto, client_id: str) -> bool:
    """Whether the broker has kept something for a client."""
    link = Link(LinkOptions(BrokerUrl.parse(broker.url), client_id, session_expiry=1), on_message=lambda _message: None)
    link.connect(10)
    try:
        return link.session_present
    finally:
        link.forget_session()
        link.close()


def test_a_login_that_may_not_try_it_costs_a_line_and_no_verdict(own_broker: Mosquitto) -> None:
    with WorkerProcess(own_broker, rate_limit="off"):
        run = inferbus("doctor", "--broker", own_broker.url, timeout=120)
        assert run.returncode == 0, run.stdout
        assert "deals blindly" in run.stdout
    with Mosquitto() as broker:
        (broker.folder / "acl").write_text("topic readwrite general/#\ntopic read inferbus/workers/#\n")
        broker._config = (f"acl_file {broker.folder / 'acl'}",)
        broker.restart()
        text = found(broker.url)
        assert "cannot be tried with this login" in text or "this login may not use inferbus/doctor/#" in text
