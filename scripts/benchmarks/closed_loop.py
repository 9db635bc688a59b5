"""A closed loop of text-contract clients, cheap enough that it is not what gets measured.

It speaks just enough MQTT 3.1.1 by itself: one connection, QoS 0, hand-made packets. Each session sends its next message
when the answer to the one before is there, so what is measured is the round trip of whoever answers.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

_CONNECT = b"\x10\x14\x00\x04MQTT\x04\x02\x00\x00\x00\x08"
_PUBLISH = 0x30


@dataclass(slots=True)
class Outcome:
    """What one run gave. Times are seconds."""

    sessions: int
    seconds: float = 0.0
    round_trips: list[float] = field(default_factory=list)
    misdirected: int = 0

    @property
    def per_second(self) -> float:
        return len(self.round_trips) / self.seconds

    def percentile(self, share: float) -> float:
        ordered = sorted(self.round_trips)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class ClosedLoop:
    """`sessions` clients on one connection, `requests` round trips in all.

    Raises:
        TimeoutError: an answer did not come within `patience` seconds.
    """

    def __init__(self, port: int, *, sessions: int, requests: int, project: str, patience: float = 120.0) -> None:
        self._port = port
        self._project = project
        self._left = requests
        self._expected = requests
        self._patience = patience
        self._sent: dict[str, tuple[float, bytes]] = {}
        self._outcome = Outcome(sessions)
        self._done = asyncio.Event()
        self._run_id = f"{time.monotonic_ns():x}"

    async def run(self) -> Outcome:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(_CONNECT + self._run_id[-8:].rjust(8, "0").encode())
        await reader.readexactly(4)
        self._subscribe()
        await self._suback(reader)
        began = time.perf_counter()
        for number in range(min(self._outcome.sessions, self._left)):
            self._send(f"s{number}-{self._run_id}")
        receiving = asyncio.create_task(self._receive(reader))
        try:
            await asyncio.wait_for(self._done.wait(), self._patience)
        finally:
            receiving.cancel()
            self._writer.close()
        self._outcome.seconds = time.perf_counter() - began
        return self._outcome

    def _subscribe(self) -> None:
        topic = f"{self._project}/assistant_response/+".encode()
        body = b"\x00\x01" + len(topic).to_bytes(2, "big") + topic + b"\x00"
        self._writer.write(bytes([0x82, len(body)]) + body)

    async def _suback(self, reader: asyncio.StreamReader) -> None:
        await reader.readexactly(5)

    def _send(self, session: str) -> None:
        self._left -= 1
        text = f"message {self._left}".encode()
        topic = f"{self._project}/user_input/{session}".encode()
        self._sent[session] = (time.perf_counter(), text)
        body = len(topic).to_bytes(2, "big") + topic + text
        self._writer.write(bytes([_PUBLISH]) + _length(len(body)) + body)

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        buffer = bytearray()
        while data := await reader.read(65536):
            buffer += data
            while (packet := _next_packet(buffer)) is not None:
                self._answered(packet)

    def _answered(self, packet: bytes) -> None:
        length = int.from_bytes(packet[:2], "big")
        session = packet[2 : 2 + length].rpartition(b"/")[2].decode()
        began, text = self._sent.pop(session)
        if packet[2 + length :] != text:
            self._outcome.misdirected += 1
        self._outcome.round_trips.append(time.perf_counter() - began)
        if len(self._outcome.round_trips) == self._expected:
            self._done.set()
        elif self._left:
            self._send(session)


def _length(value: int) -> bytes:
    """MQTT's variable byte integer (MQTT 3.1.1, section 2.2.3)."""
    encoded = bytearray()
    while True:
        value, low = divmod(value, 128)
        encoded.append(low | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def _next_packet(buffer: bytearray) -> bytes | None:
    """The variable header and payload of the next PUBLISH, taken out of the buffer."""
    size, shift, at = 0, 0, 1
    while True:
        if at >= len(buffer):
            return None
        byte = buffer[at]
        size |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not byte & 0x80:
            break
    if len(buffer) < at + size:
        return None
    packet = bytes(buffer[at : at + size])
    del buffer[: at + size]
    return packet
