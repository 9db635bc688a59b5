"""Bodies of requests: read whole, bounded each and together, and within a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from pydantic_core import from_json

from inferbus_client.gateway.errors import RefusedError

if TYPE_CHECKING:
    from starlette.requests import Request

#: Seconds that a body has to come in.
_PATIENCE: Final = 30.0
#: Bytes from which on a body is read as JSON in a thread: some milliseconds that others would wait for.
_LONG: Final = 64 * 1024


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
    async def read(self, request: Request) -> AsyncIterator[object]:
        """The value of a JSON body, which counts as held while inside.

        Raises:
            RefusedError: it is no JSON, too large, too slow, or there is no room for it.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RefusedError(415, "unsupported_media_type", "content-type: must be application/json.")
        taken = 0
        try:
            whole = bytearray()
            try:
                async with asyncio.timeout(_PATIENCE):
                    async for piece in request.stream():
                        taken += len(piece)
                        self.held += len(piece)
                        self._check(taken)
                        whole += piece
            except TimeoutError:
                raise RefusedError(408, "request_timeout", "The body takes too long to come in.") from None
            yield await _value(bytes(whole))
        finally:
            self.held -= taken

    def _check(self, taken: int) -> None:
        if taken > self._most:
            raise RefusedError.failed("message_too_large", f"A body may have {self._most} bytes.")
        if self.held > self._most_together:
            raise RefusedError.failed("overloaded", "The requests under way take all the room there is.")


async def _value(body: bytes) -> object:
    try:
        return from_json(body, allow_inf_nan=False) if len(body) < _LONG else await asyncio.to_thread(_strict, body)
    except ValueError as error:
        raise RefusedError(400, "invalid_request", f"The body is no JSON: {error}.") from None


def _strict(body: bytes) -> object:
    return from_json(body, allow_inf_nan=False)
