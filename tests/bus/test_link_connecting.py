"""Connecting: what is tried again until the time is over, what is final, and that it can be broken off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import psutil
import pytest

from inferbus_client.errors import (
    BrokerError,
    BrokerRefusedError,
    BrokerUnreachableError,
    ConnectionLostError,
    IdTakenError,
)
from inferbus_client.exits import Exit
from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.options import LinkOptions
from support.gate import CONNECT, Deed, Gate, Packet, swallows
from support.inferbus import PROGRAM
from support.mosquitto import HOST, Mosquitto
from support.nowhere import black_hole, mute, nobody
from support.scripts import Running
from support.waiting import until

_SERVER_UNAVAILABLE = b"\x20\x02\x00\x03"
_NOT_AUTHORIZED = b"\x20\x02\x00\x05"
#: Seconds that a wait would take that nothing breaks off, and what is far below that also on a busy machine.
_LONG: Final = 120
_FAR_BELOW: Final = 60


@contextmanager
def link_to(url: str) -> Iterator[Link]:
    link = Link(LinkOptions(BrokerUrl.parse(url), "connecting"), on_message=lambda _message: None)
    try:
        yield link
    finally:
        link.close()


@contextmanager
def later(seconds: float, deed: Callable[[], None]) -> Iterator[None]:
    timer = threading.Timer(seconds, deed)
    timer.start()
    try:
        yield
    finally:
        timer.join()


PLACES: Final[dict[str, Callable[[], AbstractContextManager[str]]]] = {
    "nobody": nobody,
    "black hole": black_hole,
    "mute": mute,
    "mute with tls": lambda: mute("mqtts"),
    "mute web socket": lambda: mute("ws"),
}


def test_a_peer_that_accepts_and_closes_is_tried_until_its_broker_is_there(broker: Mosquitto) -> None:
    """As docker-proxy and load balancers do."""
    with (
        Gate(broker.port, deaf=True) as gate,
        link_to(gate.url) as link,
        later(2, lambda: setattr(gate, "deaf", False)),
    ):
        link.connect(30)
        assert link.is_v5
        assert gate.accepted > 3


def test_one_that_never_has_a_broker_is_given_up_in_the_end(broker: Mosquitto) -> None:
    with Gate(broker.port, deaf=True) as gate, link_to(gate.url) as link:
        with pytest.raises(BrokerUnreachableError, match="closed the connection"):
            link.connect(4)
        assert gate.accepted > 3


def test_a_tls_handshake_that_is_hung_up_on_is_tried_again(broker: Mosquitto) -> None:
    with Gate(broker.port, deaf=True) as gate, link_to(f"mqtts://{HOST}:{gate.port}") as link:
        with pytest.raises(BrokerUnreachableError):
            link.connect(4)
        assert gate.accepted > 2


def test_a_broker_that_closes_on_mqtt_5_speaks_3_1_1(broker: Mosquitto) -> None:
    """As RabbitMQ 3.10 does, without a word."""
    asked: list[Packet] = []

    def rule(packet: Packet) -> Deed | bytes:
        asked.append(packet)
        return Deed.HANG_UP if len(asked) == 1 else b"\x20\x02\x00\x00"

    with Gate(broker.port, rule) as gate, link_to(gate.url) as link:
        link.connect(10)
        assert not link.is_v5


@pytest.mark.parametrize("answer", [_SERVER_UNAVAILABLE, _NOT_AUTHORIZED], ids=["not yet", "no"])
def test_a_refusal_is_final_and_server_unavailable_is_none(broker: Mosquitto, answer: bytes) -> None:
    rule = lambda packet: answer if packet.kind == CONNECT else b""  # noqa: E731
    with Gate(broker.port, rule) as gate, link_to(gate.url) as link:
        with pytest.raises(BrokerError) as caught:
            link.connect(4)
        again = answer is _SERVER_UNAVAILABLE
        assert isinstance(caught.value, BrokerUnreachableError if again else BrokerRefusedError)
        assert (gate.accepted > 2) == again  # once in each version


@pytest.mark.parametrize("place", PLACES, ids=PLACES)
def test_it_can_be_broken_off_at_once(place: str) -> None:
    stop = threading.Event()
    with PLACES[place]() as url, link_to(url) as link, later(0.5, stop.set):
        began = time.monotonic()
        with pytest.raises(ConnectionLostError, match="told to stop"):
            link.connect(_LONG, stop.is_set)
        link.close()
        assert time.monotonic() - began < _FAR_BELOW


@pytest.mark.parametrize("place", PLACES, ids=PLACES)
def test_ctrl_c_breaks_off_a_client(place: str) -> None:
    with (
        PLACES[place]() as url,
        Running([PROGRAM, "ask", "--broker", url, "--connect-timeout", f"{_LONG}s", "hi"]) as ask,
    ):
        until(lambda: psutil.Process(ask.process.pid).num_threads() > 1)  # the network thread
        began = time.monotonic()
        ask.press_ctrl_c()
        assert ask.wait(_LONG) == Exit.INTERRUPTED, ask.err
        assert time.monotonic() - began < _FAR_BELOW


def test_a_timeout_holds_also_where_the_system_waits_longer() -> None:
    with black_hole() as url, link_to(url) as link:
        began = time.monotonic()
        with pytest.raises(BrokerUnreachableError):
            link.connect(0.5)
        link.close()
        assert time.monotonic() - began < _FAR_BELOW


def test_a_subscription_that_nobody_answers_can_be_broken_off(broker: Mosquitto) -> None:
    stop = threading.Event()
    with Gate(broker.port, swallows(8)) as gate, link_to(gate.url) as link, later(0.5, stop.set):
        link.connect(10)
        began = time.monotonic()
        with pytest.raises(ConnectionLostError, match="told to stop"):
            link.subscribe({"a": 1}, _LONG, stop.is_set)
        assert time.monotonic() - began < _FAR_BELOW


def test_a_subscription_on_a_link_that_has_ended_is_not_waited_for(broker: Mosquitto) -> None:
    with link_to(broker.url) as link:
        link.connect(10)
        link.give_up(IdTakenError("there are two"))
        for _ in range(20):  # before and after the network thread has ended
            began = time.monotonic()
            with pytest.raises(ConnectionLostError):
                link.subscribe({"a": 1}, _LONG)
            assert time.monotonic() - began < _FAR_BELOW
