"""A server of the tests, in an event loop and a thread of its own for as long as a `with` lasts."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from support.mosquitto import HOST
from support.waiting import PATIENCE

#: Seconds that the conversations have to end by themselves, once they were told to.
_LAST_WORDS: Final = 5.0
_LOOK: Final = 0.05
_CHUNK: Final = 65536


class LoopThread(ABC):
    """A context manager: inside, it listens at `port`. Whoever inherits answers there; every connection is closed here.

    Attributes:
        port: set before, it listens there; else wherever there is room.
        accepted: connections so far, in all.
    """

    def __init__(self, name: str) -> None:
        self.host = HOST
        self.port = 0
        self.accepted = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()), name=name)

    @property
    def url(self) -> str:
        return f"mqtt://{self.host}:{self.port}"

    @abstractmethod
    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it has ended; either side may go away at any time."""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE)
        self._loop.close()

    def _listener(self) -> socket.socket:
        # By this protocol asyncio knows that small packets are not to be held back (TCP_NODELAY).
        listener = socket.socket(proto=socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, self.port))
        return listener

    async def _reach(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection onwards; whoever asks for it closes it."""
        reader, writer = await asyncio.open_connection(self.host, port)
        self._open.add(writer)
        return reader, writer

    async def _close(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        self._open.discard(writer)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._open.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._converse(reader, writer)
        finally:
            await self._close(writer)

    async def _run(self) -> None:
        listener = self._listener()
        server = await asyncio.start_server(self._take, sock=listener)
        self.port = listener.getsockname()[1]
        self._ready.set()
        await self._end.wait()
        # Not the server's close, yet: what asyncio has accepted by then and not handed over stays open (3.11).
        self._loop.remove_reader(listener)
        until = time.monotonic() + _LAST_WORDS
        while (others := asyncio.all_tasks() - {asyncio.current_task()}) and time.monotonic() < until:
            self._abort_all()
            await asyncio.wait(others, timeout=_LOOK)
        server.close()

    def _abort_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass on what comes until one side ends, then end the other."""
    with suppress(OSError):
        while data := await source.read(_CHUNK):
            sink.write(data)
            await sink.drain()
    sink.close()
