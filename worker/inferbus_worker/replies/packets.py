"""MQTT 5 properties of a reply, encoded by hand.

paho's `Properties` looks every name up in lists, for setting and for packing: some 50 microseconds a reply, as much as
all the rest of a request. A reply has four properties of three shapes (MQTT 5.0, section 2.2.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from inferbus_client.mqtt.plain_publish import variable_length

_PAYLOAD_IS_UTF8: Final = b"\x01\x01"
_CONTENT_TYPE: Final = b"\x03"
_CORRELATION_DATA: Final = b"\x09"
_USER_PROPERTY: Final = b"\x26"


class PackedProperties:
    """Stands where paho takes a `Properties`: all that paho asks of one is `pack`."""

    __slots__ = ("_packed",)

    def __init__(self, content_type: bytes, correlation_data: bytes | None, user: Iterable[tuple[str, str]]) -> None:
        body = _text_of(content_type)
        if correlation_data is not None:
            body += _CORRELATION_DATA + _string(correlation_data)
        for name, value in user:
            body += _named(name) + _string(value.encode())
        self._packed = variable_length(len(body)) + body

    def pack(self) -> bytes:
        return self._packed


@lru_cache(maxsize=16)
def _text_of(content_type: bytes) -> bytes:
    return _PAYLOAD_IS_UTF8 + _CONTENT_TYPE + _string(content_type)


@lru_cache(maxsize=16)
def _named(name: str) -> bytes:
    return _USER_PROPERTY + _string(name.encode())


def _string(value: bytes) -> bytes:
    """UTF-8 strings and binary data alike: two bytes of length, then the bytes."""
    return len(value).to_bytes(2, "big") + value
