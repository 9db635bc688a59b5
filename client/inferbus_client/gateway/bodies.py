"""Bodies of requests: read whole, bounded each and together, and within a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from pydantic_core import from_json

from inferbus_client.contract.wire.messages import MAX_VALUES, holds_more_than
from inferbus_client.gateway.errors import RefusedError

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.types import Receive

#: Seconds that a body has to come in.
_PATIENCE: Final = 30.0
#: Bytes, and seconds, of a body that nobody wants which are still read.
_DISCARDED: Final = 4 * 1024 * 1024
_DISCARDING: Final = 2.0
#: Bytes from which on a body is read as JSON in a thread: some milliseconds that others would wait for.
_LONG: Final = 64 * 1024
#: Values in one: as many as its messages, tools and parameters may hold each. More would be looked at in the loop.
_MOST_VALUES: Final = 4 * MAX_VALUES


class LeftError(Exception):
    """The requester has gone, or reads nothing."""


async def left(receive: Receive) -> None:
    """Wait until the requester has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Body:
    """What comes behind the head of a request.

    Attributes:
        is_whole: whether all of it has come.
    """

    def __init__(self, headers: Headers, receive: Receive) -> None:
        self.headers = headers
        self.is_whole = False
        self._receive = receive

    async def pieces(self) -> AsyncIterator[bytes]:
        """As they come; it can be gone on with.

        Raises:
            LeftError: there will be no more.
        """
        while not self.is_whole:
            message = await self._receive()
            if message["type"] != "http.request":
                raise LeftError
            self.is_whole = not message.get("more_body", False)
            yield message.get("body", b"")


class Bodies:
    """For the requests of one event loop.

    Args:
        most: bytes of one.
        most_together: bytes of all that are held.
    """

    def __init__(self, most: int, most_together: int) -> None:
        self._most = most
        self._most_together = most_together
        self.held = 0

    @asynccontextmanager
    async def read(self, body: Body) -> AsyncIterator[object]:
        """The value of a JSON body, which counts as held while inside.

        Raises:
            RefusedError: it is no JSON, too large, too slow, or there is no room for it.
        """
        if body.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RefusedError(415, "unsupported_media_type", "content-type: must be application/json.")
        taken = 0
        try:
            whole = bytearray()
            try:
                async with asyncio.timeout(_PATIENCE):
                    async for piece in body.pieces():
                        taken += len(piece)
                        self.held += len(piece)
                        self._check(taken)
                        whole += piece
            except TimeoutError:
                raise RefusedError(408, "request_timeout", "The body takes too long to come in.") from None
            yield await _value(bytes(whole))
        finally:
            self.held -= taken

    async def discard(self, body: Body) -> bool:
        """Read what is left of a body that nobody wants; whether that was all of it.

        Who is still sending when his connection is closed may never see why.
        """
        if body.is_whole:
            return True
        if "expect" in body.headers:  # it waits for a word before it sends anything
            return False
        left = _DISCARDED
        with suppress(TimeoutError, LeftError):
            async with asyncio.timeout(_DISCARDING):
                async for piece in body.pieces():
                    left -= len(piece)
                    if left < 0:
                        return False
                return True
        return False

    def _check(self, taken: int) -> None:
        if taken > self._most:
            raise RefusedError.failed("message_too_large", f"A body may have {self._most} bytes.")
        if self.held > self._most_together:
            raise RefusedError.failed("overloaded", "The requests under way take all the room there is.")


async def _value(body: bytes) -> object:
    try:
        return _strict(body) if len(body) < _LONG else await asyncio.to_thread(_strict, body)
    except ValueError as error:
        raise RefusedError(400, "invalid_request", f"The body is no JSON: {error}.") from None


def _strict(body: bytes) -> object:
    value = from_json(body, allow_inf_nan=False)
    if holds_more_than(_MOST_VALUES, value):
        raise RefusedError(400, "invalid_request", f"A body may hold {_MOST_VALUES} values.")
    return value
