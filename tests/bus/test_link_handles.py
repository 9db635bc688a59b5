"""What a link says of a QoS 1 message that it was given: when the broker has it, whatever happened in between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from inferbus_client.broker_url import BrokerUrl
from inferbus_client.link import Link
from inferbus_client.link_options import Handle, LinkOptions
from support.fault_proxy import FaultProxy
from support.listener import Listener
from support.mosquitto import Mosquitto
from support.waiting import until


@pytest.fixture
def proxy(broker: Mosquitto) -> Iterator[FaultProxy]:
    with FaultProxy(broker.port) as proxy:
        yield proxy


@pytest.fixture
def link(proxy: FaultProxy) -> Iterator[Link]:
    options = LinkOptions(BrokerUrl.parse(proxy.url), "handles", own_window=True)
    link = Link(options, on_message=lambda _message: None)
    link.connect(10)
    yield link
    link.close()


def sent(link: Link, topic: str, count: int = 1) -> list[Handle | None]:
    """Send messages as the network thread does, between two others."""
    handles: list[Handle | None] = []
    link.call(lambda: handles.extend(link.send(topic, b"x", qos=1) for _ in range(count)))
    return until(lambda: handles)


def test_a_message_that_a_connection_lost_arrives_on_the_next(broker: Mosquitto, proxy: FaultProxy, link: Link) -> None:
    with Listener(broker, "handles/lost") as listener:
        proxy.way_out = 0
        (handle,) = sent(link, "handles/lost")
        assert handle is not None
        assert not handle.is_published()
        proxy.reset_all()
        proxy.way_out = None
        until(handle.is_published)
        listener.wait(1)


def test_so_does_one_that_was_sent_when_the_connection_had_just_gone(
    broker: Mosquitto, proxy: FaultProxy, link: Link
) -> None:
    """What paho then says of it is that it is lost for good, but it keeps it."""
    handles: list[Handle | None] = []

    def send_too_late() -> None:
        cast("Any", link)._paho._sock_close()
        handles.append(link.send("handles/late", b"x", qos=1))

    with Listener(broker, "handles/late") as listener:
        link.call(send_too_late)
        (handle,) = until(lambda: handles)
        assert handle is not None
        until(handle.is_published)
        listener.wait(1)
    assert proxy.accepted == 2


def test_all_that_is_sent_is_in_flight_where_the_sender_counts(proxy: FaultProxy, link: Link) -> None:
    """What is held back looks sent: an acknowledgement that follows it would overtake it."""
    proxy.way_out = 0
    handles = sent(link, "handles/many", 100)
    assert link._paho is not None
    assert link._paho._inflight_messages == 100
    proxy.way_out = None
    until(lambda: all(handle is not None and handle.is_published() for handle in handles))
    assert proxy.accepted == 1


def test_the_broker_s_receive_maximum_is_known(link: Link) -> None:
    assert link.receive_maximum == 20  # Mosquitto's default
