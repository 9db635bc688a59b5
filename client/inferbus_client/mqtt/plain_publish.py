"""The everyday message (PUBLISH, QoS 0, not retained, MQTT 5) as bytes, without paho's objects around it.

A request and its reply are each one such packet. For one that arrives paho makes a `MQTTMessage`, a `Properties` and a
walk through its topic matcher, for one that leaves a condition variable and a queue entry: together that cost 14 of the
80 microseconds of a request. Whatever looks different in the least is left to `publish_packet`, or to paho where it
leaves. (MQTT 5.0, section 3.3.)
"""

from __future__ import annotations

from typing import Final

from inferbus_client.mqtt.message import Incoming
from inferbus_client.mqtt.publish_packet import is_topic

#: The largest length that a packet can say (MQTT 5.0, section 1.5.5).
LARGEST: Final = 268_435_455

_PUBLISH: Final = 0x30
_PUBLISH_RETAINED: Final = 0x31
_CONTINUES: Final = 0x80
_LONGEST_LENGTH: Final = 4


def decode(page: bytes, start: int) -> tuple[Incoming, int] | None:
    """The message whose packet begins at `start`, and where the next packet begins.

    Returns:
        None where the packet is another one, has properties, is not whole yet, or is not right.
    """
    if page[start] not in (_PUBLISH, _PUBLISH_RETAINED):
        return None
    body, length = start + 2, page[start + 1] if start + 1 < len(page) else _CONTINUES
    if length & _CONTINUES:
        body, length = _long_length(page, start + 1)
    end = body + length
    topic_ends = body + 2 + int.from_bytes(page[body : body + 2], "big")
    if not length or end > len(page) or topic_ends >= end or page[topic_ends]:
        return None
    try:
        topic = page[body + 2 : topic_ends].decode()
    except UnicodeDecodeError:
        return None
    if not is_topic(topic):
        return None
    return Incoming(topic, page[topic_ends + 1 : end], 0, page[start] == _PUBLISH_RETAINED), end


def is_publish(first: int) -> bool:
    """Whether a packet that begins with this byte is a message."""
    return first & 0xF0 == _PUBLISH


def _long_length(page: bytes, start: int) -> tuple[int, int]:
    """Where the body begins, and its length; a length of 0 where the page does not say."""
    length = 0
    for count, byte in enumerate(page[start : start + _LONGEST_LENGTH]):
        length |= (byte & 0x7F) << 7 * count
        if not byte & _CONTINUES:
            return start + count + 1, length
    return start, 0


def encode(topic: bytes, payload: bytes, properties: bytes) -> bytes:
    """A whole packet.

    Args:
        topic: in UTF-8.
        payload: as it is.
        properties: packed, with their length before them.

    Raises:
        ValueError: no packet is as large.
    """
    length = 2 + len(topic) + len(properties) + len(payload)
    return b"".join(
        (b"\x30", variable_length(length), len(topic).to_bytes(2, "big"), topic, properties, payload),
    )


def variable_length(value: int) -> bytes:
    """A variable byte integer (MQTT 5.0, section 1.5.5).

    Raises:
        ValueError: it is larger than any may be.
    """
    if value < _CONTINUES:
        return value.to_bytes(1, "big")
    if value > LARGEST:
        raise ValueError(f"too large for a packet: {value} bytes")
    encoded = bytearray()
    while True:
        value, low = divmod(value, _CONTINUES)
        encoded.append(low | (_CONTINUES if value else 0))
        if not value:
            return bytes(encoded)
