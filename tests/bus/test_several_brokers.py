"""Several broker URLs: tried in turn, at the start and after a loss, over one connection at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from inferbus_client.client import Client
from inferbus_client.errors import BrokerRefusedError, BrokerUnreachableError, NoSharesError
from inferbus_client.mqtt.broker_url import parse_urls
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Incoming
from inferbus_client.mqtt.options import LinkOptions
from support.inferbus import inferbus
from support.listener import Listener
from support.members import Member
from support.mosquitto import Mosquitto, free_port
from support.needs import needs_module
from support.waiting import until
from support.worker import starting


@pytest.fixture
def pair() -> Iterator[tuple[Mosquitto, Mosquitto]]:
    with Mosquitto("connection_messages true") as first, Mosquitto("connection_messages true") as second:
        yield first, second


def urls(*brokers: Mosquitto) -> str:
    return ",".join(broker.url for broker in brokers)


@contextmanager
def link(where: str, heard: Callable[[Incoming], None] = lambda _message: None, **more: Any) -> Iterator[Link]:
    first, *others = parse_urls(where)
    one = Link(replace(LinkOptions(first, "several", others=tuple(others)), **more), on_message=heard)
    try:
        one.connect(20)
        yield one
    finally:
        one.close()


def test_the_first_that_is_there_is_taken(pair: tuple[Mosquitto, Mosquitto]) -> None:
    nobody = f"mqtt://127.0.0.1:{free_port()}"
    with link(f"{nobody},{urls(*pair)}") as one:
        assert str(one.url) == pair[0].url


def test_after_a_loss_the_next_is_tried_and_subscriptions_and_messages_go_along(
    pair: tuple[Mosquitto, Mosquitto], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = pair
    heard: list[Incoming] = []
    caplog.set_level(logging.INFO, "inferbus.link")
    with link(urls(*pair), heard.append) as one:
        one.subscribe({"a": 1})
        first.stop()
        one.publish("b", b"kept", qos=1)
        with Listener(second, "b") as listener:
            until(lambda: one.is_up and str(one.url) == second.url)
            listener.publish("a", "hello")
            until(lambda: heard)
            until(lambda: listener.heard)
        assert f"connected again to {second.url}" in caplog.text
        first.start()
        second.stop()
        until(lambda: one.is_up and str(one.url) == first.url)
        with Listener(first) as listener:
            listener.publish("a", "again")
            until(lambda: len(heard) > 1)


def test_while_it_is_connected_to_one_no_other_sees_it(pair: tuple[Mosquitto, Mosquitto]) -> None:
    first, second = pair
    with link(urls(*pair)) as one:
        first.pause()
        one._connection.paho.socket().shutdown(2)  # type: ignore[union-attr]
        until(lambda: one.is_up and str(one.url) == second.url)
        first.resume()
        assert second.log.count("as several") == 1
        second.stop()
        until(lambda: one.is_up and str(one.url) == first.url)
    assert second.log.count("as several") == 1


def test_a_refusal_by_one_leads_to_the_next(pair: tuple[Mosquitto, Mosquitto]) -> None:
    with Mosquitto("allow_anonymous false") as strict, link(urls(strict, pair[0])) as one:
        assert str(one.url) == pair[0].url


def test_where_none_takes_us_in_each_says_why() -> None:
    nobody = f"mqtt://127.0.0.1:{free_port()}"
    with Mosquitto("allow_anonymous false") as strict:
        with pytest.raises(BrokerRefusedError) as refused, link(f"{strict.url},mqtt://localhost:{strict.port}"):
            pass
        assert refused.value.reason.count("refused us: Not authorized") == 2
        one = Link(LinkOptions(parse_urls(nobody)[0], "several", others=parse_urls(strict.url)), on_message=print)
        with pytest.raises(BrokerUnreachableError):
            one.connect(2)
        one.close()


def test_a_worker_and_its_clients_move_on_together(pair: tuple[Mosquitto, Mosquitto]) -> None:
    first, second = pair
    with starting(first, "--broker", second.url, "--worker-id", "w1") as worker:
        worker.says("ready: serving")
        assert f"connected to {first.url}; loading" in worker.err
        with Client(urls(*pair), pacing=0) as client:
            assert client.ask("hello").text
            first.stop()
            assert client.ask("and again").text
        asked = inferbus("ask", "hello", "--broker", first.url, "--broker", second.url)
        assert "hello" in asked.stdout, asked.stderr


def test_a_worker_of_a_group_that_moves_to_a_broker_that_cannot_share_says_so(own_broker: Mosquitto) -> None:
    needs_module("amqtt")
    from inferbus_worker.demo.embedded_broker import EmbeddedBroker  # noqa: PLC0415 - may be missing

    with EmbeddedBroker() as liar:
        one = Member(f"{own_broker.url},{liar.url}", "w1", mqtt_version="3.1.1")
        try:
            one.start()
            one.bus.join()
            one.bus.watch_hearing()
            own_broker.stop()
            until(lambda: one.bus.link.is_up and str(one.bus.link.url) == liar.url)
            with pytest.raises(NoSharesError):
                one.bus.watch_hearing()
        finally:
            one.bus.close(2)
