"""A TCP proxy before a broker that can do what a bad network does: swallow, slow down, slice, reset, clog one way."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from socket import SO_LINGER, SO_RCVBUF, SOL_SOCKET
from typing import Any, Final

from support.loop_thread import LoopThread
from support.waiting import PATIENCE

_CHUNK: Final = 65536
#: Seconds between two looks at a way that is clogged.
_LOOK: Final = 0.02
#: Close with a reset (RST) instead of an orderly end (FIN).
_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Fault:
    """What happens to every byte, in both directions.

    Attributes:
        swallow: nothing is passed on, and nobody is told.
        delay: seconds, at most, before a slice is passed on.
        slice: the most bytes passed on at once.
    """

    swallow: bool = False
    delay: float = 0.0
    slice: int = _CHUNK


class FaultProxy(LoopThread):
    """A context manager: a proxy before `port` on this machine, in a thread of its own.

    Attributes:
        fault: what happens to every byte.
        way_out: bytes a second, at most, from the client to the broker; 0 is none at all, None as many as there are.
            What the system itself keeps for the sender comes on top of it: two or three megabytes.
    """

    def __init__(self, port: int) -> None:
        super().__init__("fault-proxy")
        self.fault = Fault()
        self.way_out: float | None = None
        self._target = port
        self._clients: set[asyncio.StreamWriter] = set()

    def reset_all(self) -> None:
        """Reset every connection. Afterwards what was held back on them comes through no more, whatever is set then."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(self._reset)
        self._loop.call_soon_threadsafe(done.set)
        assert done.wait(PATIENCE)

    def say(self, packet: bytes) -> None:
        """Send this to every client, between two packets of the broker's, as its word."""
        self._loop.call_soon_threadsafe(self._say, packet)

    def _say(self, packet: bytes) -> None:
        for writer in self._clients:
            writer.write(packet)

    def _abort_all(self) -> None:
        self.way_out = None
        self._reset()

    def _reset(self) -> None:
        for writer in self._open:
            with suppress(OSError):  # closed already
                writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
            writer.transport.abort()

    def _listener(self) -> socket.socket:
        listener = super()._listener()
        listener.setsockopt(SOL_SOCKET, SO_RCVBUF, _CHUNK)  # else the system takes megabytes in for a slow reader
        return listener

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broker_reader, broker_writer = await self._reach(self._target)
        self._clients.add(writer)
        pumps = [self._pump(self._outward(reader), broker_writer), self._pump(_free(broker_reader), writer)]
        await asyncio.gather(*pumps)
        self._clients.discard(writer)
        await self._close(broker_writer)

    async def _pump(self, source: AsyncIterator[bytes], sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            async for data in source:
                await self._forward(data, sink)
        sink.close()

    async def _outward(self, source: asyncio.StreamReader) -> AsyncIterator[bytes]:
        """What comes from the client, no faster than `way_out` says."""
        data = b""
        while data or not source.at_eof():
            data = data or await source.read(_CHUNK if self.way_out is None else max(int(self.way_out * _LOOK), 1))
            if self.way_out is not None:
                await asyncio.sleep(_LOOK)
            if self.way_out != 0:
                yield data
                data = b""

    async def _forward(self, data: bytes, sink: asyncio.StreamWriter) -> None:
        while data:
            fault: Any = self.fault
            piece, data = data[: fault.slice], data[fault.slice :]
            if fault.swallow:
                continue
            if fault.delay:
                await asyncio.sleep(random.uniform(0, fault.delay))  # noqa: S311 - no secret
            sink.write(piece)
            await sink.drain()


async def _free(source: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await source.read(_CHUNK):
        yield data
