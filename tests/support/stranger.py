"""A server that answers completions with any bytes that a test likes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from support.stub_backend import StubBackend

#: The head of a stream that ends with its connection.
STREAM: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
LINES: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n"


class Stranger(StubBackend):
    """Answers completions with these bytes as they are, and hangs up.

    Attributes:
        pieces: what comes, with `pause` seconds behind each.
        said: how many of them have gone out.
    """

    pieces: Iterable[bytes] = ()
    pause = 0.0
    said = 0

    async def _stream(
        self, request: Any, fault: Any, reader: Any, writer: asyncio.StreamWriter, *, is_native: bool
    ) -> bool:
        del request, fault, reader, is_native
        for piece in self.pieces:
            writer.write(piece)
            await writer.drain()
            self.said += 1
            if self.pause:
                await asyncio.sleep(self.pause)
        return False


def event(data: Mapping[str, Any], name: str | None = None) -> bytes:
    """One event of a stream; what is not ASCII stays as it is."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def line(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False).encode() + b"\n"


def chunked(*pieces: bytes) -> bytes:
    """HTTP chunks, without the last one."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
