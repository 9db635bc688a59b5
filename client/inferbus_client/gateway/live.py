"""`/api/live`: the bus as it is, once a second, as server-sent events to everybody who looks."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from inferbus_client.exchange.announced import WorkerView
from inferbus_client.fleet.live import Live, Look
from inferbus_client.gateway.bodies import left

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

log = logging.getLogger("inferbus.gateway")

#: Who may look at once.
MOST_VIEWERS: Final = 32
_EVERY: Final = 1.0
#: Workers answer at most once a second, and what they say is of use to everybody who watches.
_ASK_EVERY: Final = 2.0
#: What has been seen is remembered for so long after the last viewer, who may only have loaded the page again.
_MEMORY: Final = 300.0
#: Looks that may wait for a viewer to take them.
_BACKLOG: Final = 10
_RETRY: Final = "5"
_LOOK_FOR_THE_END: Final = 0.2

_Queue = asyncio.Queue[bytes]


class LiveFeed:
    """Looks at the workers while somebody looks at it. For the thread of its event loop alone.

    Args:
        workers: what is known of the workers now.
        is_up: whether the connection to the broker stands.
        ask: asks every worker for its figures; waits for nothing.
        is_closing: whether viewers are to go.
        may_look: whether whoever has sent these headers still may.
        most: who may look at once.
        every: seconds between two looks.
    """

    def __init__(
        self,
        workers: Callable[[], Mapping[str, WorkerView]],
        is_up: Callable[[], bool],
        ask: Callable[[], object],
        is_closing: Callable[[], bool] = lambda: False,
        *,
        may_look: Callable[[Headers], bool] = lambda _headers: True,
        most: int = MOST_VIEWERS,
        every: float = _EVERY,
    ) -> None:
        self._workers = workers
        self._is_up = is_up
        self._ask = ask
        self._is_closing = is_closing
        self._may_look = may_look
        self._most = most
        self._every = every
        self._live = Live()
        self._viewers: dict[_Queue, asyncio.Task[None]] = {}
        self._ticking: asyncio.Task[None] | None = None
        self._asked_since: float | None = None
        self._asked_at = -_ASK_EVERY

    @property
    def viewers(self) -> int:
        return len(self._viewers)

    async def endpoint(self, request: Request) -> Any:
        """For a route: a stream, or a refusal where too many look already."""
        from starlette.responses import JSONResponse  # noqa: PLC0415

        if len(self._viewers) < self._most:
            return partial(self._stream, request.headers)
        words = "too many look at this already"
        body = {"error": {"message": words, "type": "server_error", "param": None, "code": "overloaded"}}
        return JSONResponse(body, 503, {"retry-after": _RETRY})

    async def _stream(self, headers: Headers, _scope: Scope, receive: Receive, send: Send) -> None:
        """One viewer, until it goes, takes nothing more, or its key is taken away."""
        mine: _Queue = asyncio.Queue(_BACKLOG)
        sending = asyncio.create_task(self._send_to(mine, send))
        going = asyncio.create_task(left(receive))
        closing = asyncio.create_task(self._ended(headers))
        self._viewers[mine] = sending
        try:
            await asyncio.wait({sending, going, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._viewers[mine]
            for task in (sending, going, closing):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        if closing.done() and not closing.cancelled():
            await send({"type": "http.response.body", "body": b""})

    async def _ended(self, headers: Headers) -> None:
        while self._may_look(headers) and not self._is_closing():  # noqa: ASYNC110 - another thread decides
            await asyncio.sleep(_LOOK_FOR_THE_END)

    async def _send_to(self, mine: _Queue, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if self._ticking is None or self._ticking.done():
            self._look()
            self._ticking = asyncio.create_task(self._go_on())
        # What came to this one meanwhile is in it.
        while not mine.empty():
            mine.get_nowait()
        piece = _event("all", self._live.all())
        while True:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            piece = await mine.get()

    async def _go_on(self) -> None:
        last_viewer = time.monotonic()
        while time.monotonic() - last_viewer < _MEMORY:
            await asyncio.sleep(self._every)
            if self._viewers:
                last_viewer = time.monotonic()
            try:
                self._look()
            except Exception:
                log.exception("the live view could not be made")

    def _look(self) -> None:
        now = time.monotonic()
        if not self._viewers:
            self._asked_since = None
        else:
            self._asked_since = self._asked_since or now
            if now - self._asked_at >= _ASK_EVERY:
                self._asked_at = now
                self._ask()
        look = Look(self._workers(), self._is_up(), time.time(), now, self._asked_since)
        event = _event("now", self._live.tick(look))
        for viewer, sending in self._viewers.items():
            if viewer.full():  # it takes nothing: it may come again, and see all
                sending.cancel()
            else:
                viewer.put_nowait(event)


def _event(name: str, value: Mapping[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(value, separators=(',', ':'), allow_nan=False)}\n\n".encode()
