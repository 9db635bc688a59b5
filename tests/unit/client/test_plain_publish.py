"""The everyday message, in bytes: what we write paho reads, and what is not everyday is left to paho."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion

from inferbus_client.mqtt import plain_publish
from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Incoming
from inferbus_client.mqtt.options import LinkOptions
from inferbus_client.mqtt.paho_client import PahoClient
from support.ear import Ear

TOPICS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"], exclude_characters="+#"), min_size=1, max_size=40)
PAYLOADS = st.binary(max_size=300) | st.binary(min_size=16_000, max_size=17_000)
PINGRESP = b"\xd0\x00"


def packet(topic: str, payload: bytes, *, first: int = 0x30, more: bytes = b"", properties: bytes = b"\0") -> bytes:
    """A PUBLISH of any kind; `more` is its packet identifier."""
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + more + properties + payload
    return bytes([first]) + plain_publish.variable_length(len(body)) + body


EXPIRY = b"\x05\x02\x00\x00\x00\x3c"


class TestDecode:
    @given(TOPICS, PAYLOADS, st.binary(max_size=20))
    def test_reads_what_encode_writes(self, topic: str, payload: bytes, rest: bytes) -> None:
        page = plain_publish.encode(topic.encode(), payload, b"\0")
        assert page == packet(topic, payload)
        assert plain_publish.decode(page + rest, 0) == (Incoming(topic, payload), len(page))

    @pytest.mark.parametrize("size", [0, 100, 130, 16_400, 2_100_000])
    def test_anywhere_on_the_page(self, size: int) -> None:
        page = PINGRESP + packet("t", b"x" * size)
        assert plain_publish.decode(page, 2) == (Incoming("t", b"x" * size), len(page))

    def test_knows_a_retained_one(self) -> None:
        decoded = plain_publish.decode(packet("t", b"x", first=0x31), 0)
        assert decoded is not None
        assert decoded[0].retain

    def test_leaves_what_is_not_whole(self) -> None:
        page = packet("a/b", b"x" * 200)
        assert all(plain_publish.decode(page[:cut], 0) is None for cut in range(1, len(page)))

    @pytest.mark.parametrize(
        "page",
        [
            packet("t", b"x", first=0x32, more=b"\x00\x07"),
            packet("t", b"x", first=0x38),
            packet("t", b"x", properties=EXPIRY),
            PINGRESP,
            b"\x30\x00",
            b"\x30\xff\xff\xff\xff\x01",
            b"\x30\x05\x00\xffabc",
            b"\x30\x04\x00\x01\xff\x00",
        ],
        ids=["qos 1", "dup", "properties", "no publish", "empty", "endless length", "topic over the end", "no utf-8"],
    )
    def test_leaves_what_looks_different(self, page: bytes) -> None:
        assert plain_publish.decode(page, 0) is None


class TestReading:
    @given(
        st.lists(st.tuples(st.sampled_from(["plain", "expiry", "ping", "qos 1"]), TOPICS, PAYLOADS), max_size=12),
        st.lists(st.integers(1, 6000), max_size=30),
    )
    def test_everything_in_order_however_it_is_cut(
        self, messages: Sequence[tuple[str, str, bytes]], cuts: Sequence[int]
    ) -> None:
        kinds: dict[str, dict[str, Any]] = {
            "plain": {},
            "expiry": {"properties": EXPIRY},
            "qos 1": {"first": 0x32, "more": b"\x00\x07"},
        }
        stream = b"".join(
            PINGRESP if kind == "ping" else packet(topic, payload, **kinds[kind]) for kind, topic, payload in messages
        )
        ear = Ear()
        try:
            for cut in cuts:
                piece, stream = stream[:cut], stream[cut:]
                ear.read(piece)
            ear.read(stream)
            expected = [(topic, payload) for kind, topic, payload in messages if kind != "ping"]
            assert [(message.topic, message.payload) for message in ear.heard] == expected
            assert ear.dropped == []
        finally:
            ear.close()

    def test_a_page_of_plain_ones_needs_nothing_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(PahoClient, "_read_packet", None)
        ear = Ear()
        try:
            ear.read(b"".join(packet("t", b"%d" % number) for number in range(100)))
            assert [message.payload for message in ear.heard] == [b"%d" % number for number in range(100)]
        finally:
            ear.close()

    def test_mqtt_3_has_no_properties(self) -> None:
        ear = Ear(MQTTProtocolVersion.MQTTv311)
        try:
            ear.read(b"\x30\x06\x00\x01tabc")
            assert ear.heard == [Incoming("t", b"abc")]
        finally:
            ear.close()

    def test_a_closed_connection_is_lost(self) -> None:
        ear = Ear()
        try:
            ear.wire.close()
            assert ear.paho.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS
            assert ear.paho.socket() is None
        finally:
            ear.close()


class TestWriting:
    def test_plain_and_other_messages_leave_in_order(self) -> None:
        ear = Ear()
        try:
            assert ear.paho.publish_plain("a", b"1", None)
            ear.paho.publish("b", b"2")
            assert ear.paho.publish_plain("c", b"3", None)
            assert ear.paho.flush()
            assert ear.wire.recv(4096) == packet("a", b"1") + packet("b", b"2") + packet("c", b"3")
        finally:
            ear.close()

    def test_a_plain_one_never_overtakes_what_waits_in_paho(self) -> None:
        ear = Ear()
        try:
            assert ear.paho.publish_plain("big", b"x" * 20_000, None)  # more than is collected: paho keeps the next
            ear.paho.publish("waits", b"2")
            assert not ear.paho.publish_plain("later", b"3", None)
        finally:
            ear.close()

    def test_an_acknowledgement_leaves_behind_the_answer_on_the_same_connection(self) -> None:
        """Put off until the next connection, it would end a request whose answer was lost with this one."""
        ear = Ear()
        options = LinkOptions(BrokerUrl.parse("mqtt://localhost"), "ear", manual_ack=True)
        link = Link(options, on_message=ear.heard.append)
        try:
            ear.paho.manual_ack_set(True)
            link._connection.paho = ear.paho
            link.send("answer", b"1")
            link.acknowledge(7)
            assert ear.paho.flush()
            assert ear.wire.recv(4096) == packet("answer", b"1") + b"\x40\x02\x00\x07"
        finally:
            link.close()
            ear.close()
