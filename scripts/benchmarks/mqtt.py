"""Just enough MQTT 3.1.1 to make load with: one connection, QoS 0, hand-made packets, no thread.

A library's client would cost as much as what is measured here.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_CONNACK: Final = 0x20
_PUBLISH: Final = 0x30
_SUBACK: Final = 0x90
# Protocol name and level, clean session, no keep-alive: runs are short, and end by themselves.
_CONNECT: Final = b"\x00\x04MQTT\x04\x02\x00\x00"
_SUBSCRIBE: Final = 0x82
_HANDSHAKE_SECONDS: Final = 10.0
# As our own client does: the broker holds a small packet back until the one before it was acknowledged.
_QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)


class Connection(asyncio.Protocol):
    """A connection to a broker on this machine.

    Args:
        on_message: called with the topic's third level, which is the session, and the payload of every message.
    """

    def __init__(self, on_message: Callable[[str, bytes], None]) -> None:
        self._on_message = on_message
        self._buffer = b""
        self._answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.WriteTransport
        self._socket: socket.socket

    @classmethod
    async def open(cls, port: int, topic_filter: str, on_message: Callable[[str, bytes], None]) -> Connection:
        """Connect to 127.0.0.1 and subscribe.

        Raises:
            TimeoutError: the broker did not answer.
            OSError: there is none.
        """
        _, connection = await asyncio.get_running_loop().create_connection(lambda: cls(on_message), "127.0.0.1", port)
        await connection._shake_hands(topic_filter)  # noqa: SLF001 - its own
        return connection

    def publish(self, topic: str, payload: bytes) -> None:
        self._transport.write(_packet(_PUBLISH, _string(topic.encode()) + payload))

    def close(self) -> None:
        self._transport.close()

    async def _shake_hands(self, topic_filter: str) -> None:
        client_id = f"load-{time.monotonic_ns():x}".encode()
        await self._ask(0x10, _CONNECT + _string(client_id))
        await self._ask(_SUBSCRIBE, b"\x00\x01" + _string(topic_filter.encode()) + b"\x00")

    async def _ask(self, kind: int, body: bytes) -> None:
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(_packet(kind, body))
        await asyncio.wait_for(self._answered, _HANDSHAKE_SECONDS)

    # --- asyncio's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 - for the type checker
        self._transport = transport
        self._socket = transport.get_extra_info("socket")

    def data_received(self, data: bytes) -> None:
        buffer, at = self._buffer + data, 0
        while (size := _size(buffer, at)) is not None and len(buffer) >= size[1]:
            start, end = size
            self._received(buffer[at], buffer[start:end])
            at = end
        self._buffer = buffer[at:]
        if _QUICK_ACK is not None:
            with suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)

    def _received(self, kind: int, body: bytes) -> None:
        if kind & 0xF0 == _PUBLISH:
            length = int.from_bytes(body[:2], "big") + 2
            self._on_message(body[2:length].split(b"/", 3)[2].decode(), body[length:])
        elif kind in {_CONNACK, _SUBACK} and not self._answered.done():
            self._answered.set_result(None)


def _size(buffer: bytes, at: int) -> tuple[int, int] | None:
    """Where the body of the packet at `at` begins and ends (MQTT 3.1.1, section 2.2.3); None: not known yet."""
    size = shift = 0
    for place in range(at + 1, min(at + 5, len(buffer))):
        size |= (buffer[place] & 0x7F) << shift
        shift += 7
        if not buffer[place] & 0x80:
            return place + 1, place + 1 + size
    return None


def _packet(kind: int, body: bytes) -> bytes:
    length, value = bytearray(), len(body)
    while True:
        value, low = divmod(value, 128)
        length.append(low | (0x80 if value else 0))
        if not value:
            return bytes([kind]) + length + body


def _string(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value
