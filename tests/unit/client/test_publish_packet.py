"""Messages of every kind, from their bytes: what is legal is read, what is not costs that message alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from inferbus_client.mqtt import publish_packet
from inferbus_client.mqtt.message import Incoming
from inferbus_client.mqtt.publish_packet import UnreadableMessageError
from support.ear import Ear
from support.mqtt_bytes import (
    CONTENT_TYPE,
    CORRELATION_DATA,
    EXPIRY,
    RESPONSE_TOPIC,
    SUBSCRIPTION,
    packed,
    packet,
    text,
    user,
)
from support.property_forms import ILLEGAL, ILLEGAL_TOPICS, LEGAL, ODD
from support.steps import steps_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=20)
PUBACK, PUBREC, PUBREL, PUBCOMP = b"\x40\x02\x00\x07", b"\x50\x02\x00\x07", b"\x62\x02\x00\x07", b"\x70\x02\x00\x07"
#: Kept of a message, at the least.
LEAST = 65_543


def decoded(*properties: bytes, **more: Any) -> Incoming:
    """The message `t` with these properties."""
    return decoded_packet(packet("t", b"x", properties=packed(*properties), **more))


def decoded_packet(whole: bytes, *, v5: bool = True) -> Incoming:
    begins = next(at for at in range(1, 5) if whole[at] < 0x80) + 1
    return publish_packet.decode(whole[0], whole[begins:], v5=v5)


class TestReading:
    def test_every_property_that_anybody_here_asks_for(self) -> None:
        message = decoded(
            EXPIRY + (60).to_bytes(4, "big"),
            CONTENT_TYPE + text("text/plain"),
            RESPONSE_TOPIC + text("a/b"),
            CORRELATION_DATA + text(b"\0\xff"),
            SUBSCRIPTION + b"\xff\x7f",
            user("a", "b"),
            user("a", "c"),
            qos=1,
        )
        assert message == Incoming(
            "t",
            b"x",
            qos=1,
            ack_id=7,
            response_topic="a/b",
            correlation_data=b"\0\xff",
            expiry=60,
            user_properties=(("a", "b"), ("a", "c")),
        )

    @pytest.mark.parametrize("name", LEGAL | ODD)
    @pytest.mark.parametrize("qos", [0, 1, 2])
    def test_everything_legal(self, name: str, qos: int) -> None:
        assert decoded(*(LEGAL | ODD)[name], qos=qos).payload == b"x"

    @pytest.mark.parametrize("name", ILLEGAL)
    def test_nothing_illegal(self, name: str) -> None:
        with pytest.raises(UnreadableMessageError):
            decoded_packet(packet("t", b"", properties=ILLEGAL[name]))

    @pytest.mark.parametrize("name", ILLEGAL_TOPICS)
    @pytest.mark.parametrize("v5", [True, False])
    def test_no_illegal_topic(self, name: str, *, v5: bool) -> None:
        with pytest.raises(UnreadableMessageError, match=r"UTF-8|NUL|topic"):
            decoded_packet(packet(ILLEGAL_TOPICS[name], b"\0x", properties=b""), v5=v5)

    def test_retained_and_repeated_ones(self) -> None:
        whole = bytearray(packet("t", b"x", qos=1))
        whole[0] |= 0x09
        assert decoded_packet(bytes(whole)) == Incoming("t", b"x", 1, retain=True, dup=True, ack_id=7)

    def test_mqtt_3(self) -> None:
        assert decoded_packet(packet("t", b"\xff", properties=None, qos=1), v5=False) == Incoming(
            "t", b"\xff", 1, ack_id=7
        )

    @given(noise=st.binary(max_size=60), first=st.integers(0, 255), v5=st.booleans())
    def test_noise_is_read_or_dropped_and_nothing_else(self, noise: bytes, first: int, *, v5: bool) -> None:
        with suppress(UnreadableMessageError):
            publish_packet.decode(first, noise, v5=v5)

    @given(st.data())
    def test_what_paho_writes(self, data: st.DataObject) -> None:
        properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        wanted = {
            "ResponseTopic": TEXTS,
            "CorrelationData": st.binary(max_size=20),
            "MessageExpiryInterval": st.integers(0, 2**32 - 1),
        }
        said = data.draw(st.fixed_dictionaries({}, optional=wanted))
        pairs = data.draw(st.lists(st.tuples(TEXTS, TEXTS), max_size=5))
        for name, value in said.items():
            setattr(properties, name, value)
        for pair in pairs:
            properties.UserProperty = pair
        message = decoded_packet(packet("t", b"x", properties=properties.pack()))
        assert message.response_topic == said.get("ResponseTopic")
        assert message.correlation_data == said.get("CorrelationData")
        assert message.expiry == said.get("MessageExpiryInterval")
        assert message.user_properties == tuple(pairs)


class TestBounds:
    def test_so_many_user_properties_are_kept(self) -> None:
        message = decoded(*(user(str(number), "") for number in range(1000)), RESPONSE_TOPIC + text("late"))
        assert [name for name, _ in message.user_properties] == [str(number) for number in range(64)]
        assert message.response_topic is None
        assert message.payload == b"x"

    def test_a_long_one_is_not_kept(self) -> None:
        """A message waits in the queue with all that it has: what nobody reads must not count against memory."""
        message = decoded(user("x" * 60_000, "y"), user("short", "z"))
        assert message.user_properties == (("short", "z"),)

    def test_a_flood_takes_no_longer_than_a_few(self) -> None:
        few, flood = (packet("t", b"x", properties=packed(*[user("", "")] * count)) for count in (300, 3_000_000))
        assert decoded_packet(flood).payload == b"x"  # paho would take hours
        assert steps_of(lambda: decoded_packet(flood)) <= steps_of(lambda: decoded_packet(few)) + 10  # of its length


@pytest.fixture
def ear() -> Iterator[Ear]:
    ear = Ear()
    yield ear
    ear.close()


@pytest.fixture
def late_ear() -> Iterator[Ear]:
    """One that acknowledges when its user says so."""
    ear = Ear(manual_ack=True)
    yield ear
    ear.close()


class TestAcknowledging:
    @pytest.mark.parametrize("name", [*ILLEGAL, *ILLEGAL_TOPICS])
    def test_what_is_dropped_is_acknowledged_in_either_case(self, ear: Ear, late_ear: Ear, name: str) -> None:
        """Nobody will ever answer it; left alone it would come again and again."""
        topic, properties = ILLEGAL_TOPICS.get(name, b"t"), ILLEGAL.get(name, b"\0")
        for each in (ear, late_ear):
            each.read(packet(topic, b"", properties=properties, qos=1) + packet("t", b"next"))
            assert each.said() == PUBACK
            assert each.heard == [Incoming("t", b"next")]
            assert len(each.dropped) == 1

    def test_what_is_heard(self, ear: Ear, late_ear: Ear) -> None:
        for each in (ear, late_ear):
            each.read(packet("t", b"x", qos=1))
            assert each.heard == [Incoming("t", b"x", 1, ack_id=7)]
        assert ear.said() == PUBACK
        assert not late_ear.paho.want_write()

    @pytest.mark.parametrize("whole", [packet("t", b"", qos=3), packet("t", b"", qos=1, id_=0), b"\x32\x02\x00\x05"])
    def test_what_nobody_could_acknowledge(self, ear: Ear, whole: bytes) -> None:
        ear.read(whole + packet("t", b"next"))
        assert ear.heard == [Incoming("t", b"next")]
        assert len(ear.dropped) == 1
        assert not ear.paho.want_write()

    def test_exactly_once_is_heard_once_and_ended(self, ear: Ear, late_ear: Ear) -> None:
        """Nobody here subscribes so; a broker that sends it all the same gets every word that it waits for."""
        for each in (ear, late_ear):
            each.read(packet("t", b"x", qos=2) * 2)
            assert each.said() == PUBREC * 2
            each.read(PUBREL)
            assert each.said() == PUBCOMP
            assert [message.payload for message in each.heard] == [b"x"]
            each.read(packet("t", b"another", qos=2))
            assert [message.payload for message in each.heard] == [b"x", b"another"]

    def test_exactly_once_of_what_cannot_be_read(self, ear: Ear) -> None:
        ear.read(packet("+", b"x", qos=2))
        assert ear.said() == PUBREC
        ear.read(PUBREL)
        assert ear.said() == PUBCOMP
        assert (ear.heard, len(ear.dropped)) == ([], 1)


class TestCutting:
    @pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311])
    def test_of_a_long_message_the_beginning_is_kept(self, protocol: MQTTProtocolVersion) -> None:
        ear = Ear(protocol, max_incoming_bytes=100_000)
        try:
            properties = b"\0" if protocol == MQTTProtocolVersion.MQTTv5 else None
            ear.read(packet("t", b"x" * 300_000, properties=properties, qos=1))
            (message,) = ear.heard
            assert (message.topic, message.cut, set(message.payload)) == ("t", True, {ord("x")})
            assert 99_900 < len(message.payload) < 100_000
            assert ear.said() == PUBACK
            ear.read(packet("t", b"y" * 99_900, properties=properties))
            assert not ear.heard[1].cut
        finally:
            ear.close()

    def test_its_address_may_stand_in_its_properties(self) -> None:
        ear = Ear(max_incoming_bytes=100_000)
        try:
            properties = packed(RESPONSE_TOPIC + text("a/b"), user("", ""))
            ear.read(packet("t", b"x" * 300_000, properties=properties))
            assert ear.heard[0].response_topic == "a/b"
        finally:
            ear.close()

    def test_properties_alone_may_be_too_long(self) -> None:
        ear = Ear(max_incoming_bytes=100_000)
        try:
            properties = packed(RESPONSE_TOPIC + text("a/b"), *[user("", "x" * 1000)] * 200)
            ear.read(packet("t", b"x", properties=properties, qos=1))
            assert (ear.heard[0].topic, ear.heard[0].cut, ear.heard[0].payload) == ("t", True, b"")
            assert ear.said() == PUBACK
        finally:
            ear.close()

    def test_whose_it_is_is_always_kept(self) -> None:
        ear = Ear(max_incoming_bytes=100)
        try:
            ear.read(packet("t" * 65_535, b"x" * 100_000, qos=1))
            assert (ear.heard[0].topic, ear.heard[0].ack_id) == ("t" * 65_535, 7)
        finally:
            ear.close()

    @given(st.integers(0, 5000), st.lists(st.integers(1, 4000), min_size=1, max_size=40))
    def test_wherever_the_pages_end(self, more: int, cuts: list[int]) -> None:
        ear = Ear(max_incoming_bytes=LEAST)
        try:
            stream = packet("t", b"x" * (LEAST - 2500 + more), qos=1) + packet("t", b"next")
            for cut in cuts:
                ear.read(stream[:cut])
                stream = stream[cut:]
            ear.read(stream)
            assert [message.payload[:4] for message in ear.heard] == [b"xxxx", b"next"]
            assert ear.heard[0].cut == (more > 2500 - 6)
        finally:
            ear.close()


def test_a_length_without_end_ends_the_connection() -> None:
    """Nobody knows where the next packet begins. A stranger cannot do that: the broker writes the length."""
    ear = Ear()
    try:
        ear.wire.sendall(b"\x30\xff\xff\xff\xff\x01")
        assert ear.paho.loop_read() == MQTTErrorCode.MQTT_ERR_PROTOCOL
    finally:
        ear.close()
