"""A broker that says why it closes a connection. Mosquitto 2.0.11 does not, so here is one that can do nothing else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from inferbus_client.errors import ConnectionLostError
from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.options import LinkOptions
from support.mosquitto import HOST
from support.waiting import until

CONNACK = b"\x20\x03\x00\x00\x00"
TAKEN_OVER = b"\xe0\x01\x8e"


class GivenAway:
    """Lets everybody in, and tells the first `times` that another has taken his place."""

    def __init__(self, times: int) -> None:
        self.connects = 0
        self._times = times
        self._server = socket.create_server((HOST, 0))
        self.port: int = self._server.getsockname()[1]
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, name="given-away")
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)
        for connection in [*self._held, self._server]:
            connection.close()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._server.accept()
                connection.recv(4096)
                connection.sendall(CONNACK)
                self.connects += 1
                if self.connects <= self._times:
                    connection.sendall(TAKEN_OVER)
                    connection.close()
                else:
                    self._held.append(connection)


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Iterator[GivenAway]:
    broker = GivenAway(request.param)
    yield broker
    broker.close()


def link_to(broker: GivenAway, answers: dict[bool, bool]) -> Link:
    """A link that holds out as `answers` says: by whether its connections are lost again and again."""
    options = LinkOptions(BrokerUrl.parse(f"mqtt://{HOST}:{broker.port}"), "ours")
    link = Link(options, on_message=lambda _message: None, holds_out=lambda flapping: answers[flapping])
    link.connect(10)
    return link


@pytest.mark.parametrize("broker", [1], indirect=True)
def test_a_link_whose_id_was_taken_over_ends(broker: GivenAway) -> None:
    link = link_to(broker, {False: False})
    until(lambda: not link.is_alive)
    assert str(link.fatal) == "another client uses the client id 'ours' on this broker"
    assert broker.connects == 1
    link.close()


@pytest.mark.parametrize("broker", [1], indirect=True)
def test_whoever_holds_out_comes_back(broker: GivenAway) -> None:
    link = link_to(broker, {False: True})
    until(lambda: broker.connects == 2 and link.is_up)
    assert link.fatal is None
    link.close()


@pytest.mark.parametrize("broker", [100], indirect=True)
def test_whoever_holds_out_is_given_up_when_it_is_taken_over_again_and_again(broker: GivenAway) -> None:
    link = link_to(broker, {False: True, True: False})
    until(lambda: not link.is_alive)
    assert str(link.fatal) == "another client uses the client id 'ours' on this broker"
    assert broker.connects == 4
    link.close()


@pytest.mark.parametrize("broker", [6], indirect=True)
def test_whoever_knows_better_holds_out_for_ever(broker: GivenAway) -> None:
    link = link_to(broker, {False: True, True: True})
    until(lambda: broker.connects == 7 and link.is_up)
    assert link.fatal is None
    link.close()


@pytest.mark.parametrize("broker", [0], indirect=True)
def test_a_link_can_be_given_up(broker: GivenAway) -> None:
    link = link_to(broker, {})
    link.give_up(ConnectionLostError("enough"))
    until(lambda: not link.is_alive)
    assert str(link.fatal) == "enough"
    assert not link.is_up
    link.close()
