"""A relay before a broker that slips packets of ours into what the broker says, and notes what its client answers."""

from __future__ import annotations

import asyncio

from support.fault_proxy import FaultProxy


class Injector(FaultProxy):
    """A context manager: one client of `port` connects to it, and hears of us what no broker would pass on."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._client: asyncio.StreamWriter | None = None
        #: Everything that the client has said on the present connection.
        self.said = bytearray()

    def inject(self, packets: bytes) -> None:
        """Say this to the client, between two packets of the broker's: ask for it while the broker is silent."""
        assert self._client is not None, "nobody is connected"
        self._loop.call_soon_threadsafe(self._client.write, packets)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._client = writer
        self.said.clear()
        await super()._converse(reader, writer)

    async def _forward(self, data: bytes, sink: asyncio.StreamWriter) -> None:
        if sink is not self._client:
            self.said += data
        await super()._forward(data, sink)
