"""One request over HTTP: asked on the bus, answered whole or as it comes, cancelled when its requester leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json

from inferbus_client.aio import AsyncClient
from inferbus_client.contract.wire import Accepted
from inferbus_client.exchange.answer import Answer
from inferbus_client.exchange.options import AskOptions
from inferbus_client.exchange.rejoining import Rejoining
from inferbus_client.gateway.bodies import LeftError, left
from inferbus_client.gateway.errors import RefusedError
from inferbus_client.gateway.places import Place, Places
from inferbus_client.gateway.shapes import Asked, Shape

if TYPE_CHECKING:
    from starlette.types import Receive, Send

#: Seconds without an event after which a comment says that we are still there.
PING: Final = 15.0
#: Seconds that a requester may take to read what was sent.
_READING: Final = 60.0
#: What proxies are told, lest they keep events back.
_OF_A_STREAM: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, of whom, for whom.

    Attributes:
        asked: what the body says.
        place: where it goes.
        request_id: ours.
        session: what keeps one requester's prefixes in the engine's cache apart from another's.
        client_id: for whom; None: for ourselves.
        shape: how it is answered.
        headers: what its answer says besides.
        trace_headers: where it stands in a trace.
    """

    asked: Asked
    place: Place
    request_id: str
    session: str
    client_id: str | None
    shape: Shape
    headers: Mapping[str, str]
    trace_headers: Mapping[str, str] | None = None

    def options(self) -> AskOptions:
        options: AskOptions = {
            **self.asked.options,
            "project": self.place.project,
            "session": self.session,
            "request_id": self.request_id,
            # A refusal goes to the requester at once, who has retries of his own.
            "retries": 0,
            "trace_headers": self.trace_headers,
        }
        if self.place.model is not None:
            options["model"] = self.place.model
        if self.client_id is not None:
            options["client_id"] = self.client_id
        return options


class Reply:
    """Answers one question over HTTP. A reply is run once.

    Args:
        client: on the bus.
        places: who serves what.
        question: what is asked.
        send: ASGI's.
        first: told of each piece of a stream that has gone out.
    """

    def __init__(
        self, client: AsyncClient, places: Places, question: Question, send: Send, first: Callable[[], None]
    ) -> None:
        self._client = client
        self._places = places
        self._question = question
        self._send = send
        self._first = first
        self._pieces = question.shape.pieces(question.request_id, question.asked, question.place.name)
        self._sent_at = self._sending_since = 0.0
        self.has_begun = False

    async def run(self, receive: Receive) -> Answer:
        """Ask, and send the answer.

        Raises:
            LeftError: the requester has gone, or reads nothing.
            RefusedError, InferbusError: there is no answer, or another one than has been sent; `fail` says so.
        """
        question = self._question
        with self._places.asked(question.place.project) as asked:
            end = asked.end
            options: AskOptions = {**question.options(), "on_accepted": lambda told: asked.taken_by(told.worker)}
            answering = asyncio.ensure_future(self._stream(options) if question.asked.stream else self._whole(options))
            leaving: set[asyncio.Future[Any]] = {
                asyncio.ensure_future(left(receive)),
                asyncio.ensure_future(self._attend()),
            }
            try:
                waited_for: set[asyncio.Future[Any]] = {answering, end, *leaving}
                await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
                if answering.done():
                    return answering.result()
                raise end.result() if end.done() else LeftError
            finally:
                for task in (answering, *leaving):
                    task.cancel()
                if not answering.done():
                    await asyncio.wait({answering})

    async def fail(self, refused: RefusedError) -> None:
        """Say why there is no answer."""
        question = self._question
        if self.has_begun:
            await self._say(self._pieces.error(refused), more=False)
        else:
            await send_refusal(self._send, refused, question.shape, question.request_id)

    async def _whole(self, options: AskOptions) -> Answer:
        question = self._question
        answer = await self._client.ask(messages=question.asked.messages, **options)
        body = question.shape.whole(answer, question.place.name)
        await send_whole(self._send, 200, body, question.headers)
        return answer

    async def _stream(self, options: AskOptions) -> Answer:
        pieces, rejoining = self._pieces, Rejoining()
        stream = self._client.stream(messages=self._question.asked.messages, **options)
        try:
            with suppress(StopAsyncIteration):
                while True:
                    event = await stream.next_event()
                    if isinstance(event, Accepted):
                        await self._begin(event)
                    elif (delta := rejoining.new(event)) is not None:
                        await self._begin(None)
                        await self._say(pieces.delta(delta))
                        self._first()
            rejoining.end()
            await self._begin(None)
            answer = stream.result()
            await self._say(pieces.end(answer), more=False)
            return answer
        finally:
            await stream.close()

    async def _begin(self, accepted: Accepted | None) -> None:
        """The head, once: it is due when it is sure that there will be a stream."""
        if self.has_begun:
            return
        self.has_begun = True
        headers = {**self._question.headers, **_OF_A_STREAM}
        queued = b""
        if accepted is not None:
            headers["x-inferbus-queue-position"] = str(accepted.queue_position)
            if accepted.queue_position or accepted.eta_ms:
                eta = "" if accepted.eta_ms is None else f" eta_ms={accepted.eta_ms}"
                queued = f": queued place={accepted.queue_position}{eta}\n\n".encode()
        await self._send({"type": "http.response.start", "status": 200, "headers": _encoded(headers)})
        await self._say(queued + self._pieces.begin())

    async def _say(self, words: bytes, *, more: bool = True) -> None:
        self._sending_since = time.monotonic()
        await self._send({"type": "http.response.body", "body": words, "more_body": more})
        self._sent_at, self._sending_since = time.monotonic(), 0.0

    async def _attend(self) -> None:
        """Says now and then that we are still there; ends when nobody reads."""
        while True:
            await asyncio.sleep(PING)
            now = time.monotonic()
            if self._sending_since and now - self._sending_since > _READING:
                return
            if self.has_begun and not self._sending_since and now - self._sent_at >= PING:
                await self._say(b": ping\n\n")


async def send_refusal(
    send: Send, refused: RefusedError, shape: Shape, request_id: str, *, goes_on: bool = True
) -> None:
    """Send an error in a shape's words; where the connection does not go on, that is said too."""
    headers = {**refused.headers(request_id), **({} if goes_on else {"connection": "close"})}
    await send_whole(send, refused.status, shape.error(refused, request_id), headers)


async def send_whole(send: Send, status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    """Send JSON."""
    whole = to_json(body)
    said = {**headers, "content-type": "application/json", "content-length": str(len(whole))}
    await send({"type": "http.response.start", "status": status, "headers": _encoded(said)})
    await send({"type": "http.response.body", "body": whole})


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
