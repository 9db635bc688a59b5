"""A relay that notes how each connection begins: with a TLS handshake, or with something readable."""

from __future__ import annotations

import asyncio
from typing import Final

from support.loop_thread import LoopThread, pump

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

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(1)
        self.first_bytes += first
        there, back = await self._reach(self._upstream)
        back.write(first)
        await asyncio.gather(pump(reader, back), pump(there, writer))
        await self._close(back)
