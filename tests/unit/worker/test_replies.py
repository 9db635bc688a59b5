"""The sender: order, bounds, and that nothing one reply holds harms the others."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from inferbus_client.contract.wire import Failure
from inferbus_client.mqtt.network_loop import Feed
from inferbus_worker.outcome import Answered
from inferbus_worker.replies.address import Owed, Receipt, ReplyAddress
from inferbus_worker.replies.outgoing import Outgoing
from inferbus_worker.replies.packets import PackedProperties
from inferbus_worker.replies.sender import HearsOfEnds, Sender
from inferbus_worker.replies.stream import Backlog, ReplyStream


@dataclass
class FakeHandle:
    """A QoS 1 message's state at the broker."""

    acknowledged: bool = False
    lost: bool = False

    def is_published(self) -> bool:
        if self.lost:
            raise RuntimeError("the connection was lost")
        return self.acknowledged


@dataclass
class FakeLink:
    """Takes `room` messages and then no more; `up` False is a lost connection that nobody has noticed yet."""

    room: int = 1_000_000
    up: bool = True
    is_v5: bool = True
    is_up: bool = True
    max_packet_size: int | None = None
    receive_maximum: int = 65_535
    topics: list[str] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    properties: list[Any] = field(default_factory=list)
    handles: list[FakeHandle] = field(default_factory=list)
    tries: int = 0

    def send(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Any = None,
        on_refused: Any = None,
    ) -> FakeHandle | None:
        del retain, on_refused
        self.tries += 1
        assert self.tries < 10_000, "it spins"
        if "refused" in topic:
            raise ValueError("paho does not take this topic")
        if not self.up:
            return None
        self.room -= 1
        self.topics.append(topic)
        self.payloads.append(payload)
        self.properties.append(properties)
        self.handles.append(FakeHandle(acknowledged=qos == 0))
        return self.handles[-1]

    def feed_from(self, feed: Feed) -> None:
        self.feed = feed

    def wake(self) -> None:
        """As the network thread does when it looks around, but for the sending: that a test asks for."""
        cast("Sender", self.feed).trim()

    @property
    def has_room(self) -> bool:
        return self.room > 0

    @property
    def is_drained(self) -> bool:
        return self.has_room


def started(
    link: FakeLink | None = None,
    *,
    qos: int = 0,
    max_bytes: int = 1_000_000,
    answered: HearsOfEnds | None = None,
) -> tuple[Sender, FakeLink]:
    link = link or FakeLink()
    replies = Sender(qos=qos, max_bytes=max_bytes, answered=answered or into([]))
    replies.start(link)
    return replies, link


def into(answered: list[Receipt | Owed]) -> HearsOfEnds:
    def hear(receipt: Receipt | Owed, *, arrived: bool) -> None:
        del arrived
        answered.append(receipt)

    return hear


def say(replies: Sender, text: str, topic: str = "t", **address: Any) -> None:
    replies.open(ReplyAddress(topic, "r1", "s1", **address)).end(Answered(text))


def accepted(replies: Sender, text: str, **address: Any) -> ReplyStream:
    """The same, for a request that was accepted."""
    stream = replies.open(ReplyAddress("t", "r1", "s1", **address))
    stream.accepted(0, None)
    stream.end(Answered(text))
    return stream


def properties_of(packed: PackedProperties) -> dict[str, Any]:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.unpack(packed.pack())  # type: ignore[no-untyped-call]
    decoded: dict[str, Any] = properties.json()  # type: ignore[no-untyped-call]
    return decoded


class TestSending:
    def test_in_order(self) -> None:
        replies, link = started()
        for number in range(10):
            say(replies, str(number))
        replies.feed()
        assert link.payloads == [str(number).encode() for number in range(10)]
        assert replies.waiting == replies.backlog == 0

    def test_as_much_as_the_socket_takes(self) -> None:
        replies, link = started(FakeLink(room=3))
        for number in range(5):
            say(replies, str(number))
        replies.feed()
        assert (len(link.payloads), replies.waiting) == (3, 2)
        link.room = 10
        replies.feed()
        assert link.payloads == [b"0", b"1", b"2", b"3", b"4"]

    def test_a_stream_of_several_messages_may_be_interrupted(self) -> None:
        replies, link = started(FakeLink(room=1))
        stream = replies.open(ReplyAddress("t", "r1", "s1", json=True))
        stream.accepted(0, None)
        stream.end(Answered("hello"))
        replies.feed()
        link.room = 5
        replies.feed()
        assert [json.loads(payload)["seq"] for payload in link.payloads] == [0, 1]

    def test_a_lost_connection_keeps_the_message_and_does_not_spin(self) -> None:
        """The socket is gone, and the link does not know yet: the network thread once tried for ever."""
        replies, link = started(FakeLink(up=False))
        say(replies, "hello")
        replies.feed()
        assert (link.tries, replies.waiting) == (1, 1)
        link.up = True
        replies.feed()
        assert link.payloads == [b"hello"]

    def test_a_reply_that_cannot_be_published_ends_nothing(self) -> None:
        replies, link = started()
        say(replies, "one", topic="refused")
        say(replies, "two")
        replies.feed()
        assert link.payloads == [b"two"]

    def test_a_reply_that_cannot_be_written_ends_nothing(self) -> None:
        class BrokenStream(ReplyStream):
            def outgoing(self) -> Any:
                raise RuntimeError("a bug")

        replies, link = started()
        replies.post(BrokenStream(ReplyAddress("t", "r1", "s1"), replies.post, Backlog()))
        say(replies, "two")
        replies.feed()
        assert link.payloads == [b"two"]


class TestProperties:
    def test_a_text_reply_says_what_its_text_cannot(self) -> None:
        replies, link = started()
        stream = replies.open(ReplyAddress("t", "r1", "s1", correlation_data=b"\x00\xff"))
        stream.end(Failure("rate_limited", retry_after_ms=1500))
        replies.feed()
        assert properties_of(link.properties[0]) == {
            "PayloadFormatIndicator": 1,
            "ContentType": "text/plain; charset=utf-8",
            "CorrelationData": b"\x00\xff".hex(),
            "UserProperty": [
                ("requestId", "r1"),
                ("sessionId", "s1"),
                ("status", "rate_limited"),
                ("retryAfterMs", "1500"),
            ],
        }

    def test_json_is_called_json(self) -> None:
        replies, link = started()
        say(replies, "x", json=True)
        replies.feed()
        assert properties_of(link.properties[0])["ContentType"] == "application/json"

    def test_none_for_mqtt_3(self) -> None:
        replies, link = started(FakeLink(is_v5=False))
        say(replies, "x")
        replies.feed()
        assert link.properties == [None]

    @pytest.mark.parametrize("request_id", ["\uffff", "a\ufdd0", "\U0001fffe", "\ufeff", "a\ufeffb"])
    def test_what_mqtt_forbids_or_some_readers_cannot_take_stays_out_of_them(self, request_id: str) -> None:
        """Mosquitto closes the connection of whoever sends it."""
        replies, link = started()
        replies.open(ReplyAddress("t", request_id, "s1")).end(Answered("x"))
        replies.feed()
        assert properties_of(link.properties[0])["UserProperty"] == [("sessionId", "s1"), ("status", "ok")]

    _READABLE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"], exclude_characters="\ufeff"))

    @given(
        st.none() | st.binary(max_size=300),
        st.lists(
            st.tuples(st.text("abc", min_size=1), _READABLE),
            max_size=5,
        ),
    )
    def test_paho_reads_what_we_pack(self, correlation: bytes | None, user: list[tuple[str, str]]) -> None:
        decoded = properties_of(PackedProperties(b"text/plain", correlation, user))
        assert decoded.get("UserProperty", []) == user
        assert decoded.get("CorrelationData") == (None if correlation is None else correlation.hex())


class TestBounds:
    def test_over_the_limit_the_oldest_go_and_are_counted(self) -> None:
        replies, link = started(FakeLink(room=0), max_bytes=65_536)
        for number in range(200):
            say(replies, f"{number:03}" + "x" * 1000)
            assert replies.backlog <= 65_536
        link.room = 1000
        replies.feed()
        assert replies.dropped == 200 - len(link.payloads)
        assert [payload[:3] for payload in link.payloads] == [
            f"{number:03}".encode() for number in range(replies.dropped, 200)
        ]

    def test_large_answers_count_by_their_size(self) -> None:
        """The bound once counted messages alone, however large."""
        replies, _ = started(FakeLink(room=0), max_bytes=65_536)
        for _ in range(20):
            say(replies, "x" * 60_000)
        assert replies.waiting == 1

    def test_deltas_that_pile_up_make_it_congested(self) -> None:
        replies, _ = started(FakeLink(room=0), max_bytes=65_536)
        stream = replies.open(ReplyAddress("t", "r1", "s1", json=True))
        for _ in range(100):
            stream.delta("x" * 1000)
        assert replies.congested

    def test_one_answer_over_the_limit_still_leaves(self) -> None:
        replies, link = started(max_bytes=65_536)
        say(replies, "x" * 100_000)
        replies.feed()
        assert len(link.payloads) == 1

    def test_a_dropped_reply_leaves_a_gap_in_the_numbers(self) -> None:
        replies, link = started(FakeLink(room=0), max_bytes=65_536)
        stream = replies.open(ReplyAddress("t", "r1", "s1", json=True))
        stream.accepted(0, None)
        accepted(replies, "x" * 65_400)
        stream.end(Answered("hello"))
        link.room = 10
        replies.feed()
        assert json.loads(link.payloads[-1])["seq"] == 1

    def test_over_the_broker_s_maximum_an_error_stands_in_its_place(self) -> None:
        replies, link = started(FakeLink(max_packet_size=1000))
        say(replies, "x" * 2000)
        say(replies, "small")
        replies.feed()
        assert (link.payloads, replies.dropped) == ([b"Error: The model failed to answer.", b"small"], 1)

    def test_where_that_does_not_fit_either_nothing_is_sent(self) -> None:
        replies, link = started(FakeLink(max_packet_size=1000))
        say(replies, "x" * 500, correlation_data=b"c" * 1200)
        replies.feed()
        assert (link.payloads, replies.dropped) == ([], 2)

    def test_correlation_data_counts_for_that(self) -> None:
        """A requester who sent a lot of it once had the broker close our connection."""
        replies, link = started(FakeLink(max_packet_size=1000))
        say(replies, "x" * 500, correlation_data=b"c" * 600)
        replies.feed()
        assert (link.payloads, replies.dropped) == ([b"Error: The model failed to answer."], 1)

    def test_what_just_fits_is_sent(self) -> None:
        replies, link = started(FakeLink(max_packet_size=1000, is_v5=False))
        say(replies, "x" * 980)
        replies.feed()
        assert len(link.payloads) == 1

    def test_unacknowledged_messages_are_bounded(self) -> None:
        replies, link = started(qos=1, max_bytes=131_072)
        for _ in range(10):
            say(replies, "x" * 60_000)
            replies.feed()
        assert len(link.payloads) == 2
        ready = [replies.ready]
        for handle in link.handles:
            handle.acknowledged = True
        ready.append(replies.ready)
        assert ready == [False, True]
        replies.feed()
        assert len(link.payloads) == 3

    def test_what_was_lost_with_its_connection_is_sent_again(self) -> None:
        """And counts no more: it once kept the next ones from being sent."""
        replies, link = started(qos=1, max_bytes=131_072)
        for text in ("a", "b"):
            say(replies, text * 60_000)
            replies.feed()
        link.handles[0].lost = link.handles[1].lost = True
        say(replies, "next")
        replies.feed()
        link.handles[2].acknowledged = link.handles[3].acknowledged = True
        replies.feed()
        assert [payload[:1] for payload in link.payloads] == [b"a", b"b", b"a", b"b", b"n"]

    @pytest.mark.parametrize("window", [1, 20])
    def test_no_more_are_in_flight_than_the_broker_takes(self, window: int) -> None:
        replies, link = started(FakeLink(receive_maximum=window), qos=1)
        for number in range(50):
            say(replies, str(number))
        replies.feed()
        assert len(link.payloads) == window
        link.handles[0].acknowledged = True
        replies.feed()
        assert len(link.payloads) == window + 1


class TestWhatIsOwed:
    """Promise 1: an accepted request gets exactly one terminal reply, whatever had to go for want of room."""

    OVERLOADED = b"Server is overloaded. Please try again in a moment."

    def test_an_answer_that_had_to_go_leaves_a_small_error(self) -> None:
        replies, link = started(FakeLink(room=0), max_bytes=65_536)
        for _ in range(20):
            accepted(replies, "x" * 20_000)
            assert replies.backlog <= 65_536
        link.room = 1000
        replies.feed()
        assert link.payloads == [self.OVERLOADED] * 18 + [b"x" * 20_000] * 2
        assert replies.dropped == 18

    def test_the_small_error_in_json_leaves_a_gap_for_the_deltas_that_went(self) -> None:
        replies, link = started(FakeLink(room=0), max_bytes=65_536)
        stream = replies.open(ReplyAddress("t", "r1", "s1", json=True))
        stream.accepted(0, None)
        stream.delta("x" * 20_000)
        stream.end(Answered("x" * 20_000))
        accepted(replies, "y" * 60_000)
        link.room = 1000
        replies.feed()
        error = json.loads(link.payloads[0])
        assert (error["type"], error["code"], error["seq"], error["retryable"]) == ("error", "overloaded", 2, True)
        assert (len(link.payloads), replies.dropped) == (2, 3)

    def test_a_failure_stays_the_failure_that_it_is(self) -> None:
        replies, link = started(FakeLink(room=0), max_bytes=65_536)
        stream = replies.open(ReplyAddress("t", "r1", "s1", json=True))
        stream.accepted(0, None)
        stream.delta("x" * 20_000)
        stream.end(Failure("cancelled"))
        accepted(replies, "y" * 60_000)
        link.room = 1000
        replies.feed()
        assert json.loads(link.payloads[0])["code"] == "cancelled"

    def test_a_flood_of_refusals_costs_nobody_an_answer(self) -> None:
        replies, link = started(FakeLink(room=0), max_bytes=1_000_000)
        for _ in range(10):
            accepted(replies, "x" * 50_000)
        for _ in range(10_000):
            replies.open(ReplyAddress("t", "r1", "s1")).end(Failure("rate_limited"))
            assert replies.backlog <= 1_000_000
        link.room = 100_000
        replies.feed()
        assert link.payloads[:10] == [b"x" * 50_000] * 10
        assert replies.dropped == 10_010 - len(link.payloads)

    def test_who_is_refused_behind_an_answer_that_fills_the_outbox_still_hears_of_it(self) -> None:
        replies, link = started(FakeLink(room=0), max_bytes=65_536)
        accepted(replies, "x" * 66_000)
        for _ in range(100):
            replies.open(ReplyAddress("t", "r1", "s1")).end(Failure("rate_limited"))
        link.room = 100_000
        replies.feed()
        assert link.payloads[0] == b"x" * 66_000
        assert (len(link.payloads), replies.dropped) == (1 + 64, 36)

    def test_a_repeat_that_is_answered_from_memory_costs_nobody_an_answer(self) -> None:
        replies, link = started(FakeLink(room=0), max_bytes=65_536)
        accepted(replies, "x" * 50_000)
        say(replies, "y" * 50_000)
        link.room = 10
        replies.feed()
        assert link.payloads == [b"x" * 50_000]

    def test_presence_stays(self) -> None:
        replies, link = started(FakeLink(room=0), max_bytes=65_536)
        replies.post(Outgoing("status", b"offline", retain=True))
        for _ in range(20):
            say(replies, "x" * 60_000)
        link.room = 10
        replies.feed()
        assert link.topics[0] == "status"

    def test_a_refusal_that_the_broker_waits_for_stays(self) -> None:
        answered: list[Receipt | Owed] = []
        replies, link = started(FakeLink(room=0), max_bytes=65_536, answered=into(answered))
        receipts = [Receipt(number, None) for number in range(100)]
        for receipt in receipts:
            say(replies, "x" * 5000, receipt=receipt)
        link.room = 1000
        replies.feed()
        assert answered == receipts
        assert len(link.payloads) == 100

    def test_what_it_counts_is_what_it_takes(self) -> None:
        """Of 100,000 refusals with everything that a requester may make large."""
        replies, _ = started(FakeLink(room=0), max_bytes=10**12)
        tracemalloc.start()
        try:
            for number in range(10_000):
                address = ReplyAddress(f"{number:0100}", f"{number:0128}", f"s{number}", True, bytes(1000))
                replies.open(address).end(Failure("rate_limited", retry_after_ms=number))
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert taken <= replies.backlog


class TestAcknowledging:
    """A request is the broker's until its reply has arrived there."""

    @pytest.fixture
    def answered(self) -> list[Receipt | Owed]:
        return []

    def test_at_qos_0_behind_the_reply(self, answered: list[Receipt | Owed]) -> None:
        replies, link = started(FakeLink(room=1), answered=into(answered))
        for number in range(2):
            say(replies, "x", receipt=Receipt(number, None))
        replies.feed()
        assert (len(link.payloads), answered) == (1, [Receipt(0, None)])

    def test_at_qos_1_when_the_broker_has_acknowledged_it(self, answered: list[Receipt | Owed]) -> None:
        """The acknowledgement once overtook replies that paho held back."""
        replies, link = started(qos=1, answered=into(answered))
        for number in range(3):
            say(replies, "x", receipt=Receipt(number, None))
        replies.feed()
        assert (len(link.payloads), answered) == (3, [])
        link.handles[0].acknowledged = link.handles[1].acknowledged = True
        replies.feed()  # with nothing left to send
        assert answered == [Receipt(0, None), Receipt(1, None)]

    def test_what_the_socket_does_not_take_is_not_acknowledged(self, answered: list[Receipt | Owed]) -> None:
        replies, link = started(FakeLink(room=1), qos=1, answered=into(answered))
        for number in range(2):
            say(replies, "x", receipt=Receipt(number, None))
        replies.feed()
        link.handles[0].acknowledged = True
        replies.feed()
        assert (len(link.payloads), answered) == (1, [Receipt(0, None)])

    def test_lost_is_not_arrived(self, answered: list[Receipt | Owed]) -> None:
        replies, link = started(qos=1, answered=into(answered))
        say(replies, "x", receipt=Receipt(1, None))
        replies.feed()
        link.handles[0].lost = True
        replies.feed()
        assert answered == []
        link.handles[1].acknowledged = True
        replies.feed()
        assert answered == [Receipt(1, None)]

    def test_only_the_end_counts(self, answered: list[Receipt | Owed]) -> None:
        replies, link = started(qos=1, answered=into(answered))
        stream = replies.open(ReplyAddress("t", "r1", "s1", json=True, receipt=Receipt(1, None)))
        stream.accepted(0, None)
        replies.feed()
        link.handles[0].acknowledged = True
        replies.feed()
        assert answered == []


class TestWhatNobodyHears:
    """A reply that can never be sent: to have its request delivered again would not change that."""

    @pytest.mark.parametrize("topic", ["refused", "t"])
    def test_its_request_is_acknowledged(self, topic: str) -> None:
        answered: list[Receipt | Owed] = []
        replies, link = started(FakeLink(max_packet_size=100), answered=into(answered))
        receipt = Receipt(7, None)
        say(replies, "x" * 500, topic, correlation_data=b"c" * 500 * (topic == "t"), receipt=receipt)
        replies.feed()
        assert (answered, link.payloads) == ([receipt], [])


class TestFlushing:
    def test_is_over_at_once_where_nothing_waits(self) -> None:
        assert started()[0].flush(0)

    def test_is_not_over_while_something_waits(self) -> None:
        replies, _ = started(FakeLink(room=0))
        replies.post(Outgoing("t", b"offline", qos=1))
        assert not replies.flush(0)

    def test_is_not_over_before_all_is_acknowledged(self) -> None:
        replies, link = started()
        replies.post(Outgoing("t", b"offline", qos=1))
        replies.feed()
        assert not replies.flush(0)
        link.handles[0].acknowledged = True
        replies.feed()
        assert replies.flush(0)

    def test_without_a_link_there_is_nothing_to_wait_for(self) -> None:
        """The broker was never reached: stopping then once ended in a traceback."""
        replies = Sender(qos=0, max_bytes=65_536)
        replies.post(Outgoing("t", b"offline", qos=1))
        assert replies.flush(0)
