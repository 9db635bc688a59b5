"""The connections to one server: the libraries of OpenAI and Anthropic over one HTTP client that knows its bounds.

What leaves here goes to one address, with one key and no header that we did not mean; what comes is bounded in size.
Nothing of the environment's joins in: neither keys nor addresses that the libraries would look for there.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final

from inferbus_client.contract.trace import TraceContext
from inferbus_worker.engines.base import BackendError
from inferbus_worker.engines.remote.errors import refusal
from inferbus_worker.engines.remote.pace import Pace
from inferbus_worker.engines.remote.place import RemotePlace

#: Seconds to connect; how long an answer may take says whoever asked.
_CONNECT: Final = 5.0
_IDLE_CONNECTIONS: Final = 10
#: Bytes: of one event of a stream, and of any other answer.
LARGEST_EVENT: Final = 1 << 20
LARGEST_ANSWER: Final = 16 << 20
#: Lines of one event; for each, Anthropic's library copies all that came before it.
MOST_LINES: Final = 1000
#: Bytes that are handed on in one go: of short lines or tiny events some milliseconds' work.
_PIECE: Final = 4096
#: How an event of a stream ends, by the stream's type.
_ENDS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "text/event-stream": (b"\n\n", b"\r\n\r\n"),
    "application/x-ndjson": (b"\n",),
}
#: What is sent besides the key. The libraries would add what they think of this machine.
_SENT: Final = frozenset(
    {
        *("host", "accept", "content-type", "content-length", "transfer-encoding", "connection", "anthropic-version"),
        *("accept-encoding", "user-agent", "traceparent", "tracestate"),
    }
)
_SECRETIVE: Final = ("httpx2", "httpcore2", "openai", "anthropic")

#: Told of each answer's status and headers.
OnResponse = Callable[[int, Mapping[str, str]], None]


class Connections:
    """Everything that is sent to a place goes through here. Lives on the loop of the remote engines."""

    def __init__(self, place: RemotePlace, on_response: OnResponse) -> None:
        import httpx2  # noqa: PLC0415

        for name in _SECRETIVE:  # their debug lines hold headers and addresses
            logging.getLogger(name).setLevel(logging.WARNING)
        self._place = place
        self._on_response = on_response
        self._bounded = _bounded_stream()
        self._http = httpx2.AsyncClient(
            # Certificates take a while to load, and nothing leads from a plain address to another one.
            verify=place.address.startswith("https:"),
            timeout=httpx2.Timeout(None, connect=_CONNECT),
            limits=httpx2.Limits(
                max_connections=place.connections,
                max_keepalive_connections=_IDLE_CONNECTIONS if place.row.keeps_connections else 0,
            ),
            follow_redirects=False,
            trust_env=not place.is_here,
            event_hooks={"request": [self._purge], "response": [self._bound]},
        )
        self._sdk = self._library()
        self._key_headers = self._keys()

    async def close(self) -> None:
        await self._http.aclose()

    @contextlib.asynccontextmanager
    async def events(self, path: str, body: Mapping[str, Any], trace: TraceContext | None = None) -> AsyncIterator[Any]:
        """Post `body` to `path` through the library; the stream of what it answers, as plain JSON values.

        To leave it closes the connection, unless the stream has ended.
        """
        if self._place.row.shape == "anthropic":
            from anthropic import AsyncStream as Stream  # noqa: PLC0415
        else:
            from openai import AsyncStream as Stream  # type: ignore[assignment]  # noqa: PLC0415
        stream = await self._sdk.post(
            self._place.address + path,
            cast_to=object,
            body=dict(body),
            options={} if trace is None else {"headers": trace.headers},
            stream=True,
            stream_cls=Stream[object],
        )
        try:
            yield stream
        finally:
            await stream.close()

    async def lines(self, path: str, body: Mapping[str, Any], trace: TraceContext | None = None) -> AsyncIterator[Any]:
        """Post `body` to `path`; the JSON values of the answer's lines.

        Raises:
            EngineError: it was refused.
        """
        headers = None if trace is None else trace.headers
        async with self._http.stream("POST", self._place.address + path, json=dict(body), headers=headers) as response:
            if not response.is_success:
                await response.aread()
                raise refusal(self._place, response.status_code, response.headers, parsed(response.text))
            # Not `aiter_lines`: to that a line also ends where a text may go on, at U+2028 or U+0085.
            line: list[bytes] = []
            async for data in response.aiter_bytes():
                *ends, rest = data.split(b"\n")
                for end in ends:
                    whole, line = b"".join([*line, end]).strip(), []
                    if whole:
                        yield json.loads(whole.decode(errors="replace"))
                line.append(rest)
            if whole := b"".join(line).strip():
                yield json.loads(whole.decode(errors="replace"))

    async def ask(self, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Status and answer, JSON where it is that, else text. Anything that httpx2 raises."""
        url = self._place.address + path
        response = await (self._http.get(url) if body is None else self._http.post(url, json=dict(body)))
        return response.status_code, parsed(response.text)

    def _library(self) -> Any:
        key = "none" if self._place.key is None else self._place.key.get_secret_value()
        common: dict[str, Any] = {
            "api_key": key,
            "base_url": self._place.address + self._place.row.base,
            "max_retries": 0,
            "http_client": self._http,
        }
        if self._place.row.shape == "anthropic":
            from anthropic import AsyncAnthropic  # noqa: PLC0415

            return AsyncAnthropic(**common, open_telemetry=False)  # its spans would hold what is said
        from openai import AsyncOpenAI  # noqa: PLC0415

        return AsyncOpenAI(**common)

    def _keys(self) -> dict[str, str]:
        if self._place.key is not None:
            return {name.lower(): value for name, value in self._sdk.auth_headers.items()}
        if (basic := self._place.basic) is not None:
            return {"authorization": f"Basic {basic}"}
        return {}

    async def _purge(self, request: Any) -> None:
        for name in set(request.headers) - _SENT:
            del request.headers[name]
        request.headers.update(
            {"user-agent": "inferbus", "accept-encoding": "identity"} | self._key_headers  # see `_bound`
        )

    async def _bound(self, response: Any) -> None:
        """See that what comes stays as large as it is, and is read as what it must be.

        Raises:
            BackendError: it is packed, which nobody has asked for: what it would be unpacked has no bound.
        """
        self._on_response(response.status_code, response.headers)
        if response.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
            raise BackendError("the server packs its answer, which it was asked not to", "cut")
        response.encoding = "utf-8"  # of JSON; among those that a server may name are some of quadratic time
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        response.stream = self._bounded(response.stream, _ENDS.get(kind, ()))


def parsed(text: str) -> Any:
    """What an answer says: JSON where it is that, else text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _pieces(data: bytes) -> Iterator[bytes]:
    """What has come, in pieces that nobody works on for long."""
    return (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))


def _lines(data: bytes) -> int:
    return data.count(b"\n") + data.count(b"\r")


def _bounded_stream() -> Any:
    """The class of an answer's bytes that ends what is too large. Made here, since its base is not to be had above."""
    import httpx2  # noqa: PLC0415

    class Bounded(httpx2.AsyncByteStream):
        def __init__(self, stream: Any, ends: tuple[bytes, ...]) -> None:
            self._stream = stream
            self._ends = ends

        async def __aiter__(self) -> AsyncIterator[bytes]:
            largest = LARGEST_EVENT if self._ends else LARGEST_ANSWER
            size, lines, tail, pace = 0, 0, b"", Pace()
            async for read in self._stream:
                for data in _pieces(read):
                    seen = tail + data
                    tail = seen[-3:]
                    ended = max((seen.rfind(end) for end in self._ends), default=-1)
                    size = size + len(data) if ended < 0 else len(seen) - ended
                    lines = lines + _lines(data) if ended < 0 else _lines(seen[ended:])
                    if size > largest or (self._ends and lines > MOST_LINES):
                        raise BackendError("the server's answer is larger than any may be", "cut")
                    yield data
                    if pace.is_over:
                        await pace.rest()

        async def aclose(self) -> None:
            await self._stream.aclose()

    return Bounded
