"""Messages (PUBLISH) byte by byte, legal or not: what no MQTT library would write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

from paho.mqtt.properties import Properties

from inferbus_client.mqtt.plain_publish import variable_length

PAYLOAD_FORMAT: Final = b"\x01"
EXPIRY: Final = b"\x02"
CONTENT_TYPE: Final = b"\x03"
RESPONSE_TOPIC: Final = b"\x08"
CORRELATION_DATA: Final = b"\x09"
SUBSCRIPTION: Final = b"\x0b"
TOPIC_ALIAS: Final = b"\x23"
USER: Final = b"\x26"


def text(value: str | bytes) -> bytes:
    """A string as MQTT has it, with its length before it. Bytes stay as they are."""
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def user(name: str | bytes, value: str | bytes) -> bytes:
    """A user property."""
    return USER + text(name) + text(value)


def packed(*properties: bytes) -> bytes:
    """Properties, with their length before them."""
    body = b"".join(properties)
    return variable_length(len(body)) + body


def packet(
    topic: str | bytes, payload: bytes, *, properties: bytes | None = b"\0", qos: int = 0, id_: int = 7
) -> bytes:
    """A whole PUBLISH.

    Args:
        topic: bytes stay as they are.
        payload: likewise.
        properties: as `packed` gives them; None for MQTT 3.1.1, which has none.
        qos: 0 to 3, which is none.
        id_: its packet identifier, where `qos` wants one.
    """
    body = text(topic) + (id_.to_bytes(2, "big") if qos else b"") + (properties or b"") + payload
    return bytes([0x30 | qos << 1]) + variable_length(len(body)) + body


@dataclass(frozen=True)
class _Raw:
    """Stands where paho takes a `Properties`: all that it asks of one is `pack`."""

    body: bytes

    def pack(self) -> bytes:
        return self.body


def raw_properties(*properties: bytes) -> Properties:
    """Properties for paho's `publish`, sent as they are."""
    return cast("Properties", cast("Any", _Raw(packed(*properties))))
