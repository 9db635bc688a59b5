"""A relay that notes how each connection begins: with a TLS handshake, or with something readable."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from support.mosquitto import HOST

#: What a TLS connection begins with: a handshake record.
TLS_HANDSHAKE: Final = 0x16


class Wiretap:
    """A context manager: what connects to `port` talks to `upstream` on the same host.

    Args:
        upstream: the port behind it.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wiretap", daemon=True)
        #: The first byte of every connection that said anything.
        self.first_bytes: list[int] = []
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._relay, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        relays = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*relays)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        self._writers |= {writer}
        with suppress(OSError):  # either side may go away at any time
            first = await reader.read(1)
            self.first_bytes += first
            there, back = await asyncio.open_connection(HOST, self._upstream)
            writers.append(back)
            back.write(first)
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        for each in writers:
            each.close()
        self._writers -= {writer}


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()
