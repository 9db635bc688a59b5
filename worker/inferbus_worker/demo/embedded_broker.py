"""A small MQTT broker inside this process, for `inferbus demo`: no broker to install, nothing to configure.

It is amqtt, which speaks MQTT 3.1.1 only. One thread owns one event loop that owns the broker. It listens on a free
port of the loopback interface, lets everybody in, and keeps nothing on disk.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker

log = logging.getLogger("inferbus.embedded_broker")

_HOST: Final = "127.0.0.1"
_START_TIMEOUT: Final = 10.0
_STOP_TIMEOUT: Final = 3.0
_LISTENER: Final = "default"
_CONFIG: Final[dict[str, Any]] = {
    "listeners": {_LISTENER: {"type": "external"}},
    "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
}


class EmbeddedBroker:
    """A context manager: inside the `with`, a broker listens at `url`."""

    def __init__(self) -> None:
        self._started: Future[int] = Future()
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        # A daemon thread: a broker that hangs in its shutdown must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name="embedded-broker", daemon=True)

    def __enter__(self) -> Self:
        # It logs every connection that breaks off, which is no news to somebody who leaves a demo.
        logging.getLogger("amqtt").setLevel(logging.CRITICAL)
        logging.getLogger("transitions").setLevel(logging.CRITICAL)
        self._thread.start()
        self._started.result(_START_TIMEOUT)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_STOP_TIMEOUT + 1)

    @property
    def host(self) -> str:
        return _HOST

    @property
    def port(self) -> int:
        return self._started.result(0)

    @property
    def url(self) -> str:
        return f"mqtt://{_HOST}:{self.port}"

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001 - the thread that waits for the start raises it
            if not self._started.done():
                self._started.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        broker = Broker(_CONFIG)
        await broker.start()
        server = await asyncio.start_server(partial(_accept, broker), _HOST, 0)
        self._started.set_result(server.sockets[0].getsockname()[1])
        await self._stop.wait()
        server.close()
        async with asyncio.timeout(_STOP_TIMEOUT):
            await broker.shutdown()
            await _end_connections()


def _accept(broker: Broker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one client in a task of its own, and close its connection whichever way that ends.

    amqtt's own listener forgets to close the connections that it refuses.
    """
    serving = broker.external_connected(StreamReaderAdapter(reader), StreamWriterAdapter(writer), _LISTENER)
    task = asyncio.get_running_loop().create_task(serving)

    def end(_task: asyncio.Task[None]) -> None:
        writer.close()
        # To ask for the exception is to say that it was seen: one client's trouble is no news to a demo's visitor.
        if not task.cancelled() and (error := task.exception()):
            log.debug("a connection to the embedded broker ended: %s", error)

    task.add_done_callback(end)


async def _end_connections() -> None:
    """Cancel whatever still serves a client, and let the loop close its connection."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0)
