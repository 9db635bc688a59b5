"""The network thread does what others ask of it, and outlives what goes wrong with that."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import NoReturn

import pytest

from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.network_loop import NetworkLoop
from support.ear import Ear


@pytest.fixture
def loop() -> Iterator[NetworkLoop]:
    loop = NetworkLoop()
    yield loop
    loop.close()


class _WishError(Exception):
    pass


def fail() -> NoReturn:
    raise _WishError


def test_a_wish_that_fails_is_told_and_the_next_one_fulfilled(
    loop: NetworkLoop, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int] = []
    ear = Ear()
    try:
        for wish in (fail, lambda: done.append(1), fail, lambda: done.append(2)):
            loop.call(wish)
        loop.run(ear.paho, lambda: len(done) == 2, serving=lambda: True)
    finally:
        ear.close()
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "_WishError" in caplog.text


class _Fed:
    """A feed that counts what it is asked."""

    ready = True

    def __init__(self) -> None:
        self.fed = self.trimmed = 0

    def feed(self) -> None:
        self.fed += 1

    def trim(self) -> None:
        self.trimmed += 1


def test_a_feed_keeps_its_bound_while_the_connection_takes_nothing(loop: NetworkLoop) -> None:
    loop.feed = feed = _Fed()
    ear, by = Ear(), time.monotonic() + 10
    try:
        loop.run(ear.paho, lambda: feed.trimmed > 0 or time.monotonic() > by, serving=lambda: False)
    finally:
        ear.close()
    assert feed.trimmed
    assert not feed.fed


def test_a_last_wish_that_fails_keeps_no_other_from_being_fulfilled(loop: NetworkLoop) -> None:
    done: list[int] = []
    loop.call(fail)
    loop.call(lambda: done.append(1))
    loop.serve_last_wishes()
    assert done == [1]


def test_a_message_that_no_packet_holds_costs_only_itself() -> None:
    ear = Ear()
    link = Link(ear.options, on_message=ear.heard.append)
    try:
        link._connection.paho = ear.paho
        with pytest.raises(ValueError, match="large"):
            link.send("t", bytes(268_435_456))
        with pytest.raises(ValueError, match="large"):
            link.send("t", bytes(268_435_456), qos=1)
        link.send("t", b"x")
        assert ear.said() == b"\x30\x05\x00\x01t\x00x"
    finally:
        link.close()
        ear.close()
