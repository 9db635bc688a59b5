"""A relay that notes how each connection begins: with a TLS handshake, or with something readable."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from support.loop_thread import LoopThread, pump
from support.mosquitto import HOST

#: What a TLS connection begins with: a handshake record.
TLS_HANDSHAKE: Final = 0x16


class Wiretap(LoopThread):
    """A context manager: what connects to `port` talks to `upstream` on the same host.

    Args:
        upstream: the port behind it.
    """

    def __init__(self, upstream: int) -> None:
        super().__init__("wiretap")
        self._upstream = upstream
        #: The first byte of every connection that said anything.
        self.first_bytes: list[int] = []
        self._writers: set[asyncio.StreamWriter] = set()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._relay, HOST, 0)

    def _hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        self._writers |= {writer}
        with suppress(OSError):  # either side may go away at any time
            first = await reader.read(1)
            self.first_bytes += first
            there, back = await asyncio.open_connection(HOST, self._upstream)
            writers.append(back)
            back.write(first)
            await asyncio.gather(pump(reader, back), pump(there, writer))
        for each in writers:
            each.close()
        self._writers -= {writer}
