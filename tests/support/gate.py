"""A proxy before a broker that reads what its clients say, and does what a strict, broken or absent broker would do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from support.loop_thread import LoopThread, pump

CONNECT: Final = 1
PUBLISH: Final = 3
SUBSCRIBE: Final = 8
_PROTOCOL_LEVEL: Final = 6
_MQTT_5: Final = 5
_WITH_QOS: Final = 0b0110


@dataclass(frozen=True)
class Packet:
    """What a client has sent. `name` is a message's topic, or the filters of a subscription joined with a space."""

    kind: int
    size: int
    name: str = ""
    packet_id: bytes = b""


class Deed(Enum):
    """What becomes of a packet."""

    FORWARD = "forward"
    SWALLOW = "swallow"
    HANG_UP = "hang up"


#: What to do with a packet; bytes are an answer in the broker's place.
Rule = Callable[[Packet], Deed | bytes]


def passes(_packet: Packet) -> Deed:
    return Deed.FORWARD


def swallows(*kinds: int) -> Rule:
    """A broker that never answers packets of these kinds; of any, where none is named."""
    return lambda packet: Deed.SWALLOW if not kinds or packet.kind in kinds else Deed.FORWARD


def hangs_up(kind: int, name: str) -> Rule:
    """A broker that closes the connection on packets of this kind that name this topic or filter."""
    return lambda packet: Deed.HANG_UP if packet.kind == kind and name in packet.name else Deed.FORWARD


def refuses(name: str) -> Rule:
    """A broker that refuses the subscription to this filter (MQTT 3.1.1: SUBACK with 0x80)."""

    def rule(packet: Packet) -> Deed | bytes:
        if packet.kind != SUBSCRIBE or name not in packet.name:
            return Deed.FORWARD
        filters = packet.name.count(" ") + 1
        return bytes([0x90, 2 + filters]) + packet.packet_id + b"\x80" * filters

    return rule


class Gate(LoopThread):
    """A context manager: a proxy before `target`, in a thread of its own.

    Attributes:
        rule: asked for every packet of every client.
        deaf: takes connections and closes them at once, as a load balancer does whose broker is not up.
        packets: what was said so far.
    """

    def __init__(self, target: int, rule: Rule = passes, *, deaf: bool = False) -> None:
        super().__init__("gate")
        self.rule = rule
        self.deaf = deaf
        self.packets: list[Packet] = []
        self._target = target

    def hang_up(self) -> None:
        """Close every connection."""
        self._loop.call_soon_threadsafe(self._close_all)

    def _close_all(self) -> None:
        for each in self._open:
            each.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.deaf:
            return
        broker_reader, broker_writer = await self._reach(self._target)
        replies = asyncio.create_task(pump(broker_reader, writer))
        try:
            await self._obey_rule(reader, writer, broker_writer)
        finally:
            replies.cancel()
            writer.close()  # whatever the broker has not taken yet
            await self._close(broker_writer)

    async def _obey_rule(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter, broker: asyncio.StreamWriter
    ) -> None:
        v5 = False
        while True:
            raw, packet = await _read(reader, v5=v5)
            v5 = v5 or (packet.kind == CONNECT and _body(raw)[_PROTOCOL_LEVEL] == _MQTT_5)
            self.packets.append(packet)
            deed = self.rule(packet)
            if deed is Deed.HANG_UP:
                return
            if deed is Deed.FORWARD:
                broker.write(raw)
                await broker.drain()
            elif isinstance(deed, bytes):
                client.write(deed)


async def _read(reader: asyncio.StreamReader, *, v5: bool) -> tuple[bytes, Packet]:
    raw = bytearray(await reader.readexactly(2))
    while raw[-1] & 0x80:
        raw += await reader.readexactly(1)
    length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(raw[1:]))
    raw += await reader.readexactly(length)
    return bytes(raw), _packet(bytes(raw), v5=v5)


def _packet(raw: bytes, *, v5: bool) -> Packet:
    kind, body = raw[0] >> 4, _body(raw)
    if kind == PUBLISH:
        topic, rest = _string(body)
        return Packet(kind, len(raw), topic, rest[:2] if raw[0] & _WITH_QOS else b"")
    if kind == SUBSCRIBE:
        filters = body[3 + body[2] :] if v5 else body[2:]
        return Packet(kind, len(raw), " ".join(_filters(filters)), body[:2])
    return Packet(kind, len(raw))


def _body(raw: bytes) -> bytes:
    length = 1
    while raw[length] & 0x80:
        length += 1
    return raw[length + 1 :]


def _filters(rest: bytes) -> Iterator[str]:
    while rest:
        name, rest = _string(rest)
        rest = rest[1:]  # its options
        yield name


def _string(data: bytes) -> tuple[str, bytes]:
    end = 2 + int.from_bytes(data[:2], "big")
    return data[2:end].decode(), data[end:]
