"""What a link says of a QoS 1 message that it was given: when the broker has it, whatever happened in between."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, cast

import pytest

from inferbus_client.errors import MessageRefusedError
from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Handle
from inferbus_client.mqtt.options import LinkOptions
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


def sent(link: Link, *topics: str) -> list[Handle | None]:
    """Send messages as the network thread does, between two others."""
    handles: list[Handle | None] = []
    link.call(lambda: handles.extend([link.send(topic, b"x", qos=1) for topic in topics]))  # seen all at once
    return until(lambda: handles)


def sent_over_a_loss(proxy: FaultProxy, link: Link, *topics: str) -> list[Handle | None]:
    """Send messages on a connection that is lost before the broker sees them."""
    proxy.way_out = 0
    handles = sent(link, *topics)
    proxy.reset_all()
    proxy.way_out = None
    return handles


def all_arrived(handles: list[Handle | None]) -> bool:
    return all(handle is not None and handle.is_published() for handle in handles)


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


def test_messages_behind_one_that_goes_alone_arrive_too(proxy: FaultProxy, link: Link) -> None:
    """The first topic is known to be innocent by then, and what follows the second one is not held back for itself."""
    before = sent_over_a_loss(proxy, link, "handles/a")
    until(lambda: all_arrived(before))
    handles = sent_over_a_loss(proxy, link, "handles/b", *["handles/a"] * 5)
    until(lambda: all_arrived(handles))


def test_a_message_that_was_sent_when_the_connection_had_just_gone_arrives_on_the_next(
    broker: Mosquitto, proxy: FaultProxy, link: Link
) -> None:
    """What paho then says of it is that it is lost for good, but it keeps it."""
    handles: list[Handle | None] = []

    def send_too_late() -> None:
        cast("Any", link)._connection.paho._sock_close()
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
    handles = sent(link, *["handles/many"] * 100)
    assert link._connection.paho is not None
    assert link._connection.paho._inflight_messages == 100
    proxy.way_out = None
    until(lambda: all_arrived(handles))
    assert proxy.accepted == 1


def test_the_broker_s_receive_maximum_is_known(link: Link) -> None:
    assert link.receive_maximum == 20  # Mosquitto's default


def test_what_has_arrived_is_kept_by_nobody(link: Link) -> None:
    """Whoever is to hear of a refusal holds the whole message."""

    class Told:
        def __call__(self, _error: MessageRefusedError) -> None: ...

    told: weakref.WeakSet[Told] = weakref.WeakSet()

    def send() -> Handle | None:
        on_refused = Told()
        told.add(on_refused)
        return link.send("handles/kept", b"x", qos=1, on_refused=on_refused)

    handles: list[Handle | None] = []
    link.call(lambda: handles.extend(send() for _ in range(10)))
    until(lambda: handles and all_arrived(handles))
    until(lambda: not told)
