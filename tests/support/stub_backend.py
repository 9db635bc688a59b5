"""A server that speaks like one of the eight backends, has no model, and fails as it is told.

In a test: `with StubBackend("vllm") as stub: … stub.url …`; its thread is its own, and everything below may be set and
read from the test's thread at any time. As a process of its own: `python -m support.stub_backend --backend vllm
--port 8000` (from tests/), until it is stopped; its first line says where it listens, `GET /stub` tells its figures,
and `POST /stub` with `{"always": {"status": 429, "retry_after": "1"}}`, or `"faults"` with a list, scripts it.

It echoes the last message, word by word, or says `answer`. Every request is counted; one with the same last message as
an earlier one is a repeat, so give each request words of its own where repeats matter.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import signal
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from support import stub_shapes
from support.loop_thread import LoopThread
from support.stub_calls import Called

_RESET: Final = struct.pack("ii", 1, 0)
_REASONS: Final = {200: "OK"}


@dataclass(frozen=True)
class Fault:
    """How a request fails.

    Attributes:
        status: it is answered with this one, with `retry_after` as the header of that name, `headers`, and a body in
            the server's shape that says `text` and `kind`; or with `body` instead.
        in_stream: an error object of this status, in a stream that began with 200.
        reset: the connection is reset.
        cut: the connection is closed.
        silence: nothing more comes.
        raw: these bytes come in place of the next piece, and then the end.
        after: words said before it happens; not for `status`.
    """

    status: int | None = None
    retry_after: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    text: str = "no"
    kind: str = "error"
    body: Any = None
    in_stream: int | None = None
    reset: bool = False
    cut: bool = False
    silence: bool = False
    raw: str | None = None
    after: int = 0


@dataclass(frozen=True)
class Request:
    """One that came."""

    path: str
    headers: dict[str, str]
    body: Any
    is_repeat: bool
    at: float


class StubBackend(LoopThread):
    """See above.

    Attributes:
        answer: what it says; None: the last message's words.
        reasoning: what it thinks before that.
        calls: what it calls after that; then the answer ends with `tool_calls`.
        finish: why the answer ends, in OpenAI's words.
        first_token, per_token: seconds.
        together: no completion says anything until so many have been under way at once.
        faults: one for each of the next completions; None among them: it is answered well.
        always: the fault of those after them.
        every_other: `always` holds for every other first attempt alone.
        rate: completions a second that are let through, with `burst` at once; more are 429 with Retry-After.
        leaks: a completion whose connection is closed stays under way, until `free` is called.
        has_usage: whether it tells what an answer cost.
        limits: headers of every answer.
        key: what it wants to see; None: nothing.
        requests: the completions that came, in their order; `probes`: all else.
        running, peak: completions under way now, and at most; `closed`: whose connection the other side closed.
    """

    def __init__(
        self, backend: str, *, model: str = "stub", context: int = 4096, slots: int = 4, key: str | None = None
    ) -> None:
        super().__init__("stub-backend")
        self.backend, self.model, self.context, self.slots, self.key = backend, model, context, slots, key
        self.answer: str | None = None
        self.reasoning = ""
        self.calls: tuple[Called, ...] = ()
        self.finish = "stop"
        self.first_token = self.per_token = 0.0
        self.together = 0
        self.faults: deque[Fault | None] = deque()
        self.always: Fault | None = None
        self.every_other = False
        self.rate: float | None = None
        self.burst = 1
        self.leaks = False
        self.has_usage = True
        self.limits: dict[str, str] = {}
        self.requests: list[Request] = []
        self.probes: list[Request] = []
        self.running = self.peak = self.closed = 0
        self._seen: set[str] = set()
        self._bucket = (0.0, 0.0)
        self._gathered = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def repeats(self) -> int:
        return sum(request.is_repeat for request in self.requests)

    @property
    def figures(self) -> dict[str, int]:
        count = len(self.requests)
        repeats = self.repeats
        return {
            "requests": count,
            "first": count - repeats,
            "repeats": repeats,
            "running": self.running,
            "peak": self.peak,
            "closed": self.closed,
        }

    def free(self) -> None:
        """Give the leaked slots back."""
        self.leaks, self.running = False, 0

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await self._one(reader, writer):
            pass

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection can have another."""
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        path = first.split()[1].partition("?")[0]
        body = json.loads(content) if content else {}
        if path == "/stub":
            return await self._scripted(writer, body)
        is_native = path == "/api/chat" and self.backend == "ollama"
        is_completion = is_native or path == stub_shapes.completion_path(self.backend)
        last = json.dumps(body["messages"][-1]) if is_completion else ""
        request = Request(path, headers, body, last in self._seen, time.monotonic())
        (self.requests if is_completion else self.probes).append(request)
        if is_completion:
            self._seen.add(last)
        fault = self._next_fault(request) if is_completion else None
        refused = self._refused(request, fault, is_completion=is_completion)
        if refused is not None:
            status, said, more = refused
            return await self._say(writer, status, said, more)
        return await self._stream(request, fault, reader, writer, is_native=is_native)

    async def _scripted(self, writer: asyncio.StreamWriter, body: Any) -> bool:
        if "always" in body:
            self.always = None if body["always"] is None else Fault(**body["always"])
        if "faults" in body:
            self.faults = deque(None if each is None else Fault(**each) for each in body["faults"])
        return await self._say(writer, 200, self.figures, {})

    def _refused(
        self, request: Request, fault: Fault | None, *, is_completion: bool
    ) -> tuple[int, Any, dict[str, str]] | None:
        """What is answered instead of a stream: to probes, without a key, or where it has been told to."""
        body = request.body
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return 401, stub_shapes.error_body(self.backend, 401, "wrong key", "authentication_error"), {}
        if not is_completion:
            facts = stub_shapes.Facts(self.model, self.context, self.slots, self.running)
            status, said = stub_shapes.probe(self.backend, request.path, body, facts) or (404, {"detail": "Not Found"})
            return status, said, {}
        if fault is not None and fault.status is not None:
            more = dict(fault.headers)
            if fault.retry_after is not None:
                more["retry-after"] = fault.retry_after
            said = stub_shapes.error_body(self.backend, fault.status, fault.text, fault.kind)
            return fault.status, said if fault.body is None else fault.body, more
        wait = self._over_the_rate()
        if wait > 0:
            said = stub_shapes.error_body(self.backend, 429, "slow down", "rate_limit_error")
            return 429, said, {"retry-after": f"{math.ceil(wait)}"}
        length = _length(body)
        if length > self.context:
            return (*stub_shapes.too_long(self.backend, length, self.context), {})
        return None

    def _next_fault(self, request: Request) -> Fault | None:
        if self.faults:
            return self.faults.popleft()
        if self.every_other and (request.is_repeat or (len(self.requests) - self.repeats) % 2):
            return None
        return self.always

    def _over_the_rate(self) -> float:
        """Seconds until another completion is let through; 0: this one is."""
        if self.rate is None:
            return 0.0
        left, at = self._bucket
        now = time.monotonic()
        left = self.burst if not at else min(self.burst, left + (now - at) * self.rate)
        if left < 1:
            self._bucket = left, now
            return (1 - left) / self.rate
        self._bucket = left - 1, now
        return 0.0

    async def _stream(
        self,
        request: Request,
        fault: Fault | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        is_native: bool,
    ) -> bool:
        self.running += 1
        self.peak = max(self.peak, self.running)
        if self.peak < self.together:
            self._gathered.clear()
        else:
            self._gathered.set()
        saying = asyncio.ensure_future(self._pieces(request, fault, writer, is_native=is_native))
        # Nobody asks anything more on a connection before its answer has ended: what comes is the other side's end.
        hearing = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({saying, hearing}, return_when=asyncio.FIRST_COMPLETED)
            if saying.done():
                return saying.result()
            self.closed += 1
            return False
        finally:
            was_closed = not saying.done()
            for task in (saying, hearing):
                task.cancel()
            await asyncio.gather(saying, hearing, return_exceptions=True)
            if not (was_closed and self.leaks):
                self.running -= 1

    async def _pieces(
        self, request: Request, fault: Fault | None, writer: asyncio.StreamWriter, *, is_native: bool
    ) -> bool:
        kind = "application/x-ndjson" if is_native else "text/event-stream"
        head = {"content-type": kind, "transfer-encoding": "chunked", **self.limits}
        if fault is not None:  # else the next request may be sent on a connection that is just being closed
            head["connection"] = "close"
        writer.write(_head(200, head))
        await self._gathered.wait()
        for index, piece in enumerate(stub_shapes.stream(self.backend, self._said(request), is_native=is_native)):
            if fault is not None and index > fault.after:
                return await self._fail(fault, writer, is_native=is_native)
            if pause := self.first_token if index == 1 else self.per_token if index > 1 else 0:
                await asyncio.sleep(pause)
            if piece:
                writer.write(_chunk(piece))
                await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _fail(self, fault: Fault, writer: asyncio.StreamWriter, *, is_native: bool) -> bool:
        if fault.silence:
            await asyncio.Event().wait()
        if fault.reset:
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        elif fault.in_stream is not None:
            writer.write(_chunk(stub_shapes.stream_error(self.backend, fault.in_stream, is_native=is_native)))
        elif fault.raw is not None:
            writer.write(_chunk(fault.raw.encode()))
        if not fault.cut and not fault.reset:
            writer.write(b"0\r\n\r\n")
        with contextlib.suppress(OSError):
            await writer.drain()
        return False

    def _said(self, request: Request) -> stub_shapes.Said:
        body = request.body
        most = body.get("max_tokens") or body.get("max_completion_tokens") or body.get("options", {}).get("num_predict")
        text = _text(body["messages"][-1]) if self.answer is None else self.answer
        words = stub_shapes.words(text)
        ends = "tool_calls" if self.calls else self.finish
        finish = ends if most is None or len(words) <= most else "length"
        asked = self.backend != "anthropic" and request.path != "/api/chat"
        has_usage = self.has_usage and (not asked or body.get("stream_options", {}).get("include_usage", False))
        reasoning = stub_shapes.words(self.reasoning)
        return stub_shapes.Said(words[:most], reasoning, finish, _length(body), has_usage, self.calls)

    async def _say(self, writer: asyncio.StreamWriter, status: int, said: Any, more: dict[str, str]) -> bool:
        content = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        kind = "text/plain" if isinstance(said, str) else "application/json"
        head = {"content-type": kind, "content-length": str(len(content)), **self.limits, **more}
        writer.write(_head(status, head) + content)
        await writer.drain()
        return True


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Other')}\r\n{lines}\r\n".encode("latin-1")


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _text(message: Any) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def _length(body: Any) -> int:
    return sum(len(stub_shapes.words(_text(message))) for message in body["messages"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backend", default="vllm")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", default="stub")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--first-token", type=float, default=0.0)
    parser.add_argument("--per-token", type=float, default=0.0)
    parser.add_argument("--rate", type=float)
    asked = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    stub = StubBackend(asked.backend, model=asked.model, slots=asked.slots)
    stub.port, stub.rate = asked.port, asked.rate
    stub.first_token, stub.per_token = asked.first_token, asked.per_token
    with stub:
        print(stub.url, flush=True)  # noqa: T201 - for whoever has started it
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
