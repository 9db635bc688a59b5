"""The broker of `inferbus demo`, with clients that are not ours."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Incoming
from inferbus_client.mqtt.options import LinkOptions
from support.mosquitto import mosquitto_pub
from support.needs import needs_module
from support.waiting import until

if TYPE_CHECKING:
    from inferbus_worker.demo.embedded_broker import EmbeddedBroker


@pytest.fixture
def embedded() -> Iterator[EmbeddedBroker]:
    needs_module("amqtt")
    from inferbus_worker.demo.embedded_broker import EmbeddedBroker  # noqa: PLC0415 - may be missing

    with EmbeddedBroker() as broker:
        yield broker


def _link(broker: EmbeddedBroker, heard: list[Incoming]) -> Link:
    return Link(LinkOptions(BrokerUrl.parse(broker.url), "listener"), on_message=heard.append)


def test_messages_pass_and_our_link_falls_back_to_mqtt_3(embedded: EmbeddedBroker) -> None:
    heard: list[Incoming] = []
    link = _link(embedded, heard)
    link.connect(10)
    try:
        assert not link.is_v5
        link.subscribe({"a/+": 1})
        mosquitto_pub(embedded, "a/b", "hello", "-V", "311")
        until(lambda: heard)
        assert (heard[0].topic, heard[0].payload) == ("a/b", b"hello")
    finally:
        link.close()


def test_what_is_retained_reaches_who_comes_later(embedded: EmbeddedBroker) -> None:
    mosquitto_pub(embedded, "a/b", "kept", "-r", "-V", "311")
    heard: list[Incoming] = []
    link = _link(embedded, heard)
    link.connect(10)
    try:
        link.subscribe({"a/+": 1})
        until(lambda: heard)
        assert heard[0].retain
    finally:
        link.close()


def test_it_listens_on_the_loopback_interface_only(embedded: EmbeddedBroker) -> None:
    with socket.socket() as elsewhere:
        # The same port is still free on every other address, so nothing there is ours.
        elsewhere.bind(("127.0.0.2", embedded.port))
    assert embedded.url == f"mqtt://127.0.0.1:{embedded.port}"


def test_it_stops_while_clients_are_connected_and_says_nothing(
    embedded: EmbeddedBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    address = ("127.0.0.1", embedded.port)
    with socket.create_connection(address), socket.create_connection(address, timeout=60) as rude:
        rude.sendall(b"GET / HTTP/1.1\r\n\r\n")
        rude.shutdown(socket.SHUT_WR)
        assert rude.recv(1) == b""  # so both are being served by now
        embedded.__exit__(None, None, None)
    assert not [thread for thread in threading.enumerate() if thread.name == "embedded-broker"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    assert capfd.readouterr() == ("", "")
