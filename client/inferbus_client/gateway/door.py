"""The way of one request through the door: who asks, how much, what; then it is asked on the bus."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from inferbus_client.aio import AsyncClient
from inferbus_client.errors import InferbusError
from inferbus_client.gateway.answering import LeftError, Question, Reply, send_refusal
from inferbus_client.gateway.bodies import Bodies
from inferbus_client.gateway.errors import KeyLimitError, RefusedError, identified
from inferbus_client.gateway.keys import ApiKey
from inferbus_client.gateway.metrics import Metrics, Passage
from inferbus_client.gateway.places import Places
from inferbus_client.gateway.shapes import Shape
from inferbus_client.gateway.visitors import Visitors

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

log = logging.getLogger("inferbus.gateway")


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
        is_closing: whether nothing new is taken.
    """

    client: AsyncClient
    places: Places
    visitors: Visitors
    bodies: Bodies
    metrics: Metrics
    max_requests: int
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
        request_id = secrets.token_hex(12)
        with self._rooms.metrics.request(scope["path"]) as passage:
            begun: list[Reply] = []
            try:
                await self._pass(scope, receive, send, request_id, passage, begun.append)
            except LeftError:
                pass
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the requester hears that it is our fault
                refused = _refused(error, self._shape)
                passage.status, passage.code = refused.status, refused.code
                if begun:
                    await begun[0].fail(refused)
                else:
                    await send_refusal(send, refused, self._shape, request_id)

    async def _pass(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        request_id: str,
        passage: Passage,
        begin: Callable[[Reply], None],
    ) -> None:
        from starlette.requests import ClientDisconnect, Request  # noqa: PLC0415

        rooms, request = self._rooms, Request(scope, receive)
        key = rooms.visitors.check(request.headers)
        try:
            with rooms.admitted(key):
                async with rooms.bodies.read(request) as body:
                    asked = self._shape.read(body)
                    question = Question(
                        asked=asked,
                        place=rooms.places.find(asked.model, key),
                        request_id=request_id,
                        session=rooms.session_of(key),
                        client_id=None if key is None else key.name,
                        shape=self._shape,
                        headers=identified(request_id),
                    )
                    reply = Reply(rooms.client, rooms.places, question, send, passage.token)
                    begin(reply)
                    passage.answer = await reply.run(receive)
                    passage.status, passage.code = 200, None
        except ClientDisconnect:
            raise LeftError from None


def _refused(error: Exception, shape: Shape) -> RefusedError:
    if isinstance(error, InferbusError):
        try:
            return RefusedError.of(error, shape.spelled)
        except InferbusError:
            pass
    log.error("a request failed by a fault of the gateway's", exc_info=error)
    return RefusedError(500, "internal_error", "The gateway has failed.")
