"""A message (PUBLISH) of any kind, read from its bytes in one pass and within bounds (MQTT 5.0, section 3.3).

What stands in it a stranger wrote. paho takes legal text for malformed (U+FEFF), then gives up the whole connection,
and needs time that grows with the square of the number of properties. Here a packet that is not right costs that
message alone, and properties beyond a count cost nothing: where they end, and the payload begins, is known without a
look at them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from inferbus_client.mqtt.message import Incoming

#: Properties that are read; a message has nine kinds, of which it may repeat two.
_MOST_PROPERTIES: Final = 256
#: User properties that are kept, and how long each may be, name and value together: they live as long as the message.
_MOST_USER_PROPERTIES: Final = 64
_LONGEST_USER_PROPERTY: Final = 1024
_LONGEST_VARIABLE: Final = 4

_MESSAGE_EXPIRY: Final = 0x02
_RESPONSE_TOPIC: Final = 0x08
_CORRELATION_DATA: Final = 0x09
_SUBSCRIPTION: Final = 0x0B
_USER_PROPERTY: Final = 0x26


class UnreadableMessageError(ValueError):
    """A packet that is no legal message; says why, without any of its content."""


def decode(first: int, body: bytes | bytearray, *, v5: bool, cut: bool = False) -> Incoming:
    """The message in a packet.

    Args:
        first: the packet's first byte.
        body: all behind its length.
        v5: whether it is MQTT 5, which has properties.
        cut: whether there was more of it than `body` holds.

    Raises:
        UnreadableMessageError: there is none.
    """
    qos, ack_id = qos_of(first), packet_id(first, body)
    topic_ends = 2 + int.from_bytes(body[:2], "big")
    at = topic_ends + (2 if qos else 0)
    if qos not in {0, 1, 2} or len(body) < at or (qos and not ack_id):
        raise UnreadableMessageError("its head is not right")
    topic, properties = _topic(body[2:topic_ends]), b""
    if v5:
        length, at = _variable(body, at)
        properties, at = bytes(body[at : at + length]), at + length
        if len(body) < at:
            if not cut:
                raise UnreadableMessageError("its properties are longer than the packet")
            properties = b""
    message = Incoming(topic, bytes(body[at:]), qos, bool(first & 0x01), bool(first & 0x08), ack_id, cut)
    return _with_properties(message, properties) if properties else message


def qos_of(first: int) -> int:
    """0 to 2, and 3, which is none, by the packet's first byte."""
    return first >> 1 & 0x03


def packet_id(first: int, body: bytes | bytearray) -> int:
    """What the packet is acknowledged by, also where the rest of it is not right; 0 where it has nothing like it."""
    at = 2 + int.from_bytes(body[:2], "big")
    return int.from_bytes(body[at : at + 2], "big") if qos_of(first) and len(body) >= at + 2 else 0


def is_topic(text: str) -> bool:
    """Whether a message may have this topic."""
    # Three searches for a character take half as long as one for a pattern, and everyday messages come by here too.
    return "+" not in text and "#" not in text and "\0" not in text and text != ""


def _topic(raw: bytes | bytearray) -> str:
    topic = _text(raw)
    if not is_topic(topic):
        raise UnreadableMessageError("its topic is not one")
    return topic


def _text(raw: bytes | bytearray) -> str:
    """Everything that UTF-8 can say but NUL is text; U+FEFF too (MQTT 5.0, section 1.5.4)."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise UnreadableMessageError("it has text that is no UTF-8") from None
    if "\0" in text:
        raise UnreadableMessageError("it has text with a NUL")
    return text


def _variable(body: bytes | bytearray, at: int) -> tuple[int, int]:
    """A variable byte integer, and where it ends."""
    value = 0
    for count, byte in enumerate(body[at : at + _LONGEST_VARIABLE]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that more comes
            return value, at + count + 1
    raise UnreadableMessageError("it has a number without end")


class _Properties:
    """Reads one value after the other."""

    __slots__ = ("_at", "_bytes")

    def __init__(self, raw: bytes) -> None:
        self._bytes = raw
        self._at = 0

    @property
    def left(self) -> bool:
        return self._at < len(self._bytes)

    def take(self, count: int) -> bytes:
        taken = self._bytes[self._at : self._at + count]
        if len(taken) < count:
            raise UnreadableMessageError("it has a property that is cut short")
        self._at += count
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def flag(self) -> int:
        value = self.number(1)
        if value > 1:
            raise UnreadableMessageError("it has a flag that is neither 0 nor 1")
        return value

    def binary(self) -> bytes:
        return self.take(self.number(2))

    def text(self) -> str:
        return _text(self.binary())

    def subscription(self) -> None:
        value, self._at = _variable(self._bytes, self._at)
        if not value:
            raise UnreadableMessageError("it has a subscription identifier of 0")


# Properties that a message has once at most, and how each is read. Not a topic alias (0x23): we have allowed none.
_ONCE: Final[Mapping[int, Callable[[_Properties], Any]]] = {
    0x01: _Properties.flag,  # payload format
    _MESSAGE_EXPIRY: lambda properties: properties.number(4),
    0x03: _Properties.text,  # content type
    _RESPONSE_TOPIC: _Properties.text,
    _CORRELATION_DATA: _Properties.binary,
}


def _with_properties(message: Incoming, raw: bytes) -> Incoming:
    properties = _Properties(raw)
    once: dict[int, Any] = {}
    user: list[tuple[str, str]] = []
    for _ in range(_MOST_PROPERTIES):
        if not properties.left:
            break
        kind = properties.number(1)
        if kind == _USER_PROPERTY:
            name, value = properties.text(), properties.text()
            if len(user) < _MOST_USER_PROPERTIES and len(name) + len(value) <= _LONGEST_USER_PROPERTY:
                user.append((name, value))
        elif kind == _SUBSCRIPTION:
            properties.subscription()
        elif kind in _ONCE and kind not in once:
            once[kind] = _ONCE[kind](properties)
        else:
            raise UnreadableMessageError(f"it has property {kind}, which it may not have, or not twice")
    return Incoming(
        *(message.topic, message.payload, message.qos, message.retain, message.dup, message.ack_id, message.cut),
        response_topic=once.get(_RESPONSE_TOPIC),
        correlation_data=once.get(_CORRELATION_DATA),
        expiry=once.get(_MESSAGE_EXPIRY),
        user_properties=tuple(user),
    )
