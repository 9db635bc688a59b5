"""A web server in a thread that nothing else waits for, bounded against those who say nothing, or too much."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, ClassVar, Final

from inferbus_client.web.listening import open_socket

if TYPE_CHECKING:
    from starlette.types import ASGIApp

#: Connections at once. One more, and of those that have asked for nothing yet the oldest is closed.
MAX_CONNECTIONS: Final = 512
#: Bytes of a request's line and headers.
MAX_HEAD: Final = 16 * 1024
#: Seconds that a connection has to say what it wants, also the next time.
PATIENCE: Final = 10.0
#: Seconds in which what a connection is sent has to be taken: each answer, or each piece of a stream.
READING: Final = 60.0
_KEEP_ALIVE: Final = 15
#: Seconds that answers under way have at the end.
_LAST_WORDS: Final = 1


class WebServer:
    """Serves one application. `start` and `stop` are for its owner; any number of threads may look at it.

    Args:
        app: an ASGI application.
        at: where it listens, `HOST:PORT`; port 0 is one that is free.
        name: of the thread.
        max_connections: at once.

    Raises:
        SettingsError: nobody can listen there.
    """

    def __init__(self, app: ASGIApp, at: str, name: str, *, max_connections: int = MAX_CONNECTIONS) -> None:
        import uvicorn  # noqa: PLC0415

        class Server(uvicorn.Server):
            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                await super().shutdown(sockets)
                # It cancels the answers that are not through by now, and leaves their connections open.
                for connection in list(self.server_state.connections):
                    connection.transport.abort()
                await asyncio.sleep(0)

        self._socket = open_socket(at)
        self._server = Server(
            uvicorn.Config(
                app,
                http=_patient_protocol(max_connections),
                ws="none",
                loop="auto",  # uvloop, where it is there
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=MAX_HEAD,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=_LAST_WORDS,
            )
        )
        # Each end of a connection would be a line, and each request that is none.
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Take no more connections, and end; within `timeout` seconds, or later by itself."""
        self._server.should_exit = True
        if self._thread.ident is None:
            self._socket.close()
        else:
            self._thread.join(timeout)

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])


class _Patience:
    """What uvicorn's HTTP lacks: a time for a request to come in, one for answers to be taken, a bound on connections.

    Stands before its protocol among the bases of a class.
    """

    max_connections: ClassVar[int]
    #: Those that ask for nothing now, the oldest first; of this server.
    waiting: ClassVar[dict[Any, None]]
    _until: asyncio.TimerHandle | None = None
    _taken_until: asyncio.TimerHandle | None = None

    def connection_made(self: Any, transport: asyncio.Transport) -> None:
        super().connection_made(transport)  # type: ignore[misc]
        # Whatever is left over is told, also behind an answer's end: closing waits for it without an end.
        transport.set_write_buffer_limits(high=0)
        self.wait_for_a_request()
        if len(self.connections) > self.max_connections:
            oldest = next(iter(self.waiting))
            oldest.wait_no_more()
            oldest.transport.abort()

    def data_received(self: Any, data: bytes) -> None:
        super().data_received(data)  # type: ignore[misc]
        if self.cycle is not None and not self.cycle.response_complete:
            self.wait_no_more()
        elif self._until is None:
            self.wait_for_a_request()

    def on_response_complete(self: Any) -> None:
        super().on_response_complete()  # type: ignore[misc]
        self.wait_no_more()
        if self.cycle.response_complete:  # else the next one was there already
            self.waiting[self] = None  # uvicorn has a time for it

    def pause_writing(self: Any) -> None:
        super().pause_writing()  # type: ignore[misc]
        self._taken_until = self.loop.call_later(READING, self.transport.abort)

    def resume_writing(self: Any) -> None:
        super().resume_writing()  # type: ignore[misc]
        self.all_is_taken()

    def connection_lost(self: Any, exc: Exception | None) -> None:
        self.wait_no_more()
        self.all_is_taken()
        super().connection_lost(exc)  # type: ignore[misc]

    def wait_for_a_request(self: Any) -> None:
        self.waiting[self] = None
        self._until = self.loop.call_later(PATIENCE, self.transport.abort)

    def wait_no_more(self) -> None:
        self.waiting.pop(self, None)
        if self._until is not None:
            self._until.cancel()
            self._until = None

    def all_is_taken(self: Any) -> None:
        if self._taken_until is not None:
            self._taken_until.cancel()
            self._taken_until = None


def _patient_protocol(most: int) -> type[asyncio.Protocol]:
    from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: PLC0415

    class PatientProtocol(_Patience, H11Protocol):  # type: ignore[misc]
        max_connections = most
        waiting: ClassVar[dict[Any, None]] = {}

    return PatientProtocol


def bearer_is(headers: Any, token: bytes) -> bool:
    """Whether a request's `Authorization` is this token, in a time that tells nothing of it."""
    kind, _, given = headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and compare_digest(given.strip().encode("utf-8", "replace"), token)
