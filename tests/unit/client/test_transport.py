"""Transport: every reply reaches the request that waits for it, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from inferbus_client.contract.wire import Accepted, Done
from inferbus_client.errors import BrokerRefusedError, InvalidRequestError
from inferbus_client.exchange.assembly import AnyReply
from inferbus_client.exchange.call import Addresses, Call
from inferbus_client.exchange.steps import Event, TextReply
from inferbus_client.exchange.transport import Transport
from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.message import Incoming
from inferbus_client.mqtt.options import LinkOptions

ADDRESSES = Addresses("general", "me")


class Desk:
    """A transport without a connection, what it delivered, and what strayed."""

    def __init__(self) -> None:
        self.strays: list[AnyReply] = []
        self.transport = Transport(
            LinkOptions(BrokerUrl.parse("mqtt://127.0.0.1:1"), "me"), on_stray=self.strays.append
        )

    @contextmanager
    def waiting(self, session: str) -> Iterator[tuple[Call, list[Event]]]:
        call, inbox = ADDRESSES.request("hello", session, stream=False), list[Event]()
        with self.transport.waiting(call, inbox.append):
            yield call, inbox

    def receive(self, payload: bytes, *, session: str = "s1", retain: bool = False, request_id: str = "") -> None:
        properties = (("requestId", request_id),) if request_id else ()
        topic = ADDRESSES.reply_topic(session)
        self.transport._received(Incoming(topic, payload, retain=retain, user_properties=properties))


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.transport.close()


def done(call: Call) -> Done:
    return Done(text="x", request_id=call.request_id, session_id="s1", seq=1)


def test_replies_go_by_request_id_whatever_the_topic(desk: Desk) -> None:
    with desk.waiting("s1") as (one, first), desk.waiting("s2") as (two, second):
        desk.receive(done(two).encode(), session="s1")
        desk.receive(done(one).encode(), session="s1")
    assert (first, second) == ([done(one)], [done(two)])


def test_after_the_terminal_reply_everything_is_a_stray(desk: Desk) -> None:
    with desk.waiting("s1") as (call, inbox):
        accepted = Accepted(queue_position=0, request_id=call.request_id, session_id="s1", seq=0)
        for reply in (accepted, done(call), done(call), accepted):
            desk.receive(reply.encode())
    desk.receive(done(call).encode())
    assert inbox == [accepted, done(call)]
    assert desk.strays == [done(call), accepted, done(call)]


def test_what_is_retained_is_old(desk: Desk) -> None:
    with desk.waiting("s1") as (call, inbox):
        desk.receive(done(call).encode(), retain=True)
        desk.receive(b"old words", retain=True)
    assert inbox == []


def test_what_was_cut_is_no_answer(desk: Desk) -> None:
    with desk.waiting("s1") as (call, inbox):
        for payload in (done(call).encode(), b"half an ans"):
            desk.transport._received(Incoming(call.reply_topic, payload, cut=True))
    assert (inbox, desk.strays) == ([], [])


def test_text_goes_to_whoever_waits_on_its_topic(desk: Desk) -> None:
    with desk.waiting("s1") as (_, first), desk.waiting("s2") as (_, second):
        desk.receive("Grüße".encode(), session="s2")
        desk.receive(b"a second answer", session="s2")
    assert (first, second) == ([], [TextReply("Grüße")])


def test_nameless_text_goes_to_nobody_where_several_wait(desk: Desk) -> None:
    with desk.waiting("s1") as (_, first):
        with desk.waiting("s1") as (_, second):
            desk.receive(b"whose?")
        assert (first, second) == ([], [])
        desk.receive(b"the first one's")
    assert first == [TextReply("the first one's")]


def test_a_topic_is_in_use_until_the_last_one_there_has_its_answer(desk: Desk) -> None:
    in_use, topic = desk.transport._waiters.by_topic, ADDRESSES.reply_topic("s1")
    with desk.waiting("s1") as (_, first):
        with desk.waiting("s1") as (_, second):
            desk.transport._refused(topic, BrokerRefusedError("no"))
            assert len(first) == len(second) == 1
        assert topic in in_use
    assert topic not in in_use


def test_text_that_names_its_request_goes_there(desk: Desk) -> None:
    with desk.waiting("s1") as (call, inbox):
        desk.receive(b"not ours", request_id="another")
        desk.receive(b"ours", session="s2", request_id=call.request_id)
    assert inbox == [TextReply("ours")]


def test_once_the_worker_speaks_json_nameless_text_is_noise(desk: Desk) -> None:
    before = desk.transport.repeats_are_safe
    assert not before
    with desk.waiting("s1") as (call, inbox):
        desk.receive(Accepted(queue_position=0, request_id="another", session_id="s1", seq=0).encode())
        assert desk.transport.repeats_are_safe
        desk.receive(b"noise")
        desk.receive(done(call).encode())
    assert inbox == [done(call)]


def test_a_request_id_waits_once(desk: Desk) -> None:
    with (
        desk.waiting("s1") as (call, _),
        pytest.raises(InvalidRequestError, match="in flight"),
        desk.transport.waiting(call, lambda _: None),
    ):
        pytest.fail("it was let in")


def test_a_packet_that_the_broker_would_not_take_is_not_sent(desk: Desk) -> None:
    desk.transport._link._connection.max_packet_size = 300
    with pytest.raises(InvalidRequestError) as caught:
        desk.transport.send(ADDRESSES.request("x" * 300, "s1", stream=False), 10)
    assert caught.value.code == "message_too_large"


@pytest.mark.parametrize("limit", [None, 2**32 - 1])
def test_a_message_that_no_packet_could_hold_is_not_sent(desk: Desk, limit: int | None) -> None:
    """Sent, it would end the network thread: MQTT can say no length over 268,435,455."""

    class Endless(Call):
        def payload(self, deadline_ms: int) -> bytes:  # noqa: ARG002
            return bytes(268_435_400)  # zeros that nobody looks at take no memory

    desk.transport._link._connection.max_packet_size = limit
    call = ADDRESSES.request("x", "s1", stream=False)
    endless = Endless(call.topic, call.reply_topic, call.request_id, call.session, call.cancel_topic, call.fields)
    with pytest.raises(InvalidRequestError) as caught:
        desk.transport.send(endless, 10)
    assert caught.value.code == "message_too_large"
