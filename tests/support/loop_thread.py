"""A server of the tests, in an event loop and a thread of its own for as long as a `with` lasts."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from support.mosquitto import HOST
from support.waiting import PATIENCE

#: Seconds that the conversations have to end by themselves, once they were told to.
_LAST_WORDS: Final = 5.0
_CHUNK: Final = 65536


class LoopThread(ABC):
    """A context manager: inside, it listens at `port`. Whoever inherits answers there, and hangs up at the end."""

    def __init__(self, name: str) -> None:
        self.host = HOST
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()), name=name)

    @property
    def url(self) -> str:
        return f"mqtt://{self.host}:{self.port}"

    @abstractmethod
    async def _listen(self) -> asyncio.Server:
        """Begin to take connections."""

    @abstractmethod
    def _hang_up(self) -> None:
        """Close every connection; called in the loop."""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _run(self) -> None:
        server = await self._listen()
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        self._hang_up()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=_LAST_WORDS)


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass on what comes until one side ends, then end the other."""
    with suppress(OSError):
        while data := await source.read(_CHUNK):
            sink.write(data)
            await sink.drain()
    sink.close()
