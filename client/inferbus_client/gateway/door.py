"""The way of one request through the door: who asks, how much, what; then it is asked on the bus."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from inferbus_client.aio import AsyncClient
from inferbus_client.errors import InferbusError
from inferbus_client.gateway.answering import Question, Reply, send_refusal
from inferbus_client.gateway.bodies import Bodies, Body, LeftError
from inferbus_client.gateway.errors import KeyLimitError, RefusedError, identified
from inferbus_client.gateway.keys import ApiKey
from inferbus_client.gateway.metrics import Metrics, Passage
from inferbus_client.gateway.places import BACK, Places
from inferbus_client.gateway.shapes import Shape
from inferbus_client.gateway.visitors import Visitors
from inferbus_client.tracing.http import http_span
from inferbus_client.tracing.spans import Tracer

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

log = logging.getLogger("inferbus.gateway")

_TRACE_HEADERS: Final = frozenset({b"traceparent", b"tracestate"})


@dataclass(slots=True)
class Rooms:
    """What every request goes through; for the tasks of one event loop.

    Attributes:
        client: on the bus.
        places: who serves what there.
        visitors: who may come in.
        bodies: how much may be held.
        metrics: what is counted.
        max_requests: at once.
        tracer: where there is tracing.
        is_closing: whether nothing new is taken.
    """

    client: AsyncClient
    places: Places
    visitors: Visitors
    bodies: Bodies
    metrics: Metrics
    max_requests: int
    tracer: Tracer | None = None
    is_closing: bool = False
    # Sessions hold no conversation here. Each key has one, which nobody can guess: whoever shares it shares the
    # engine's cache of prefixes, whose timing tells what others have said.
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(16), repr=False)

    def session_of(self, key: ApiKey | None) -> str:
        name = "" if key is None else key.name
        return f"gateway-{sha256(self._secret + name.encode()).hexdigest()[:32]}"

    def admitted(self, key: ApiKey | None) -> AbstractContextManager[object]:
        """While inside, a request of this key is under way.

        Raises:
            RefusedError: there is no room, or the key has had as much as it may.
        """
        if self.is_closing:
            raise RefusedError.failed("shutting_down", "The gateway is shutting down.")
        if not self.client.is_connected:
            away = "The gateway has no connection to the broker."
            raise RefusedError.failed("engine_unavailable", away, retry_after=BACK)
        if self.metrics.running > self.max_requests:
            raise RefusedError.failed("overloaded", "As many requests as may be are under way.")
        if key is None or self.visitors.keys is None:
            return nullcontext()
        try:
            return self.visitors.keys.admit(key)
        except KeyLimitError as error:
            words = str(error)
            message = f"{words[0].upper()}{words[1:]}."
            raise RefusedError.failed("rate_limited", message, retry_after=error.retry_after) from None


class Door:
    """An ASGI application for the requests of one shape.

    Args:
        rooms: what they go through.
        shape: how they are read and answered.
    """

    def __init__(self, rooms: Rooms, shape: Shape) -> None:
        self._rooms = rooms
        self._shape = shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.datastructures import Headers  # noqa: PLC0415

        headers, path = Headers(scope=scope), scope["path"]
        with (
            self._rooms.metrics.request(path) as passage,
            http_span(self._rooms.tracer, "POST", path, _of_traces(scope)) as span,
        ):
            body = Body(headers, receive)
            visit = _Visit(self._rooms, self._shape, body, receive, send, passage, span.trace_headers)
            try:
                await visit.run()
            except LeftError:
                pass
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the requester hears that it is our fault
                await visit.refuse(_refused(error, self._shape))
            finally:
                span.answered(passage.status, passage.code)


class _Visit:
    """One request, on its way through the rooms."""

    def __init__(
        self,
        rooms: Rooms,
        shape: Shape,
        body: Body,
        receive: Receive,
        send: Send,
        passage: Passage,
        trace_headers: Mapping[str, str] | None,
    ) -> None:
        self._rooms = rooms
        self._shape = shape
        self._body = body
        self._trace_headers = trace_headers
        self._receive = receive
        self._send = send
        self._passage = passage
        self._id = secrets.token_hex(12)
        self._reply: Reply | None = None

    async def run(self) -> None:
        """Ask, and answer.

        Raises:
            LeftError: the requester has gone.
            RefusedError, InferbusError: there is no answer.
        """
        rooms = self._rooms
        key = rooms.visitors.check(self._body.headers)
        with rooms.admitted(key):
            async with rooms.bodies.read(self._body) as body:
                asked = self._shape.read(body)
                question = Question(
                    asked=asked,
                    place=rooms.places.find(asked.model, key),
                    request_id=self._id,
                    session=rooms.session_of(key),
                    client_id=None if key is None else key.name,
                    shape=self._shape,
                    headers=identified(self._id),
                    trace_headers=self._trace_headers,
                )
                self._reply = Reply(rooms.client, rooms.places, question, self._send, self._passage.token)
                self._passage.answer = await self._reply.run(self._receive)
                self._passage.status, self._passage.code = 200, None

    async def refuse(self, refused: RefusedError) -> None:
        """Say why there is no answer."""
        self._passage.status, self._passage.code = refused.status, refused.code
        if self._reply is not None:
            await self._reply.fail(refused)
        else:
            is_whole = await self._rooms.bodies.discard(self._body)
            await send_refusal(self._send, refused, self._shape, self._id, goes_on=is_whole)


def _of_traces(scope: Scope) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"] if name in _TRACE_HEADERS]


def _refused(error: Exception, shape: Shape) -> RefusedError:
    if isinstance(error, InferbusError):
        try:
            return RefusedError.of(error, shape.spelled)
        except InferbusError:
            pass
    log.error("a request failed by a fault of the gateway's", exc_info=error)
    return RefusedError(500, "internal_error", "The gateway has failed.")
