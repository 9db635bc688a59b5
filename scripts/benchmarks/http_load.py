"""A closed loop on an OpenAI-compatible HTTP server: keep-alive connections, one per session."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any, Final

import aiohttp

from .dialects import prompt
from .outcome import Outcome, Trip

_DATA: Final = b"data: "
_PATIENCE: Final = 600.0


class HttpLoad:
    """`sessions` requests at once, `requests` in all.

    Args:
        port: the server's, on this machine.
        model: the name under which it serves the model.
        stream: whether to ask for server-sent events.
        max_tokens: of every answer.
        salted: whether each session says, in vLLM's own words, that nobody else's prefixes are for it.
    """

    def __init__(
        self,
        port: int,
        *,
        model: str,
        sessions: int,
        requests: int,
        stream: bool,
        max_tokens: int,
        salted: bool = True,
    ) -> None:
        self._url = f"http://127.0.0.1:{port}/v1/chat/completions"
        self._sessions = sessions
        self._stream = stream
        self._rest: dict[str, Any] = {
            "model": model,
            "temperature": 0,
            "top_p": 1,
            "max_completion_tokens": max_tokens,
        }
        if stream:
            self._rest |= {"stream": True, "stream_options": {"include_usage": True}}
        self._numbers: Iterator[int] = iter(range(requests))
        # No run finds another's prefixes in the cache.
        self._salt = f"{time.monotonic_ns():x}" if salted else None
        self._outcome = Outcome()

    async def run(self) -> Outcome:
        """Make the load.

        Raises:
            TimeoutError: not every answer came in time.
            aiohttp.ClientError: the server failed a request.
        """
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), raise_for_status=True, timeout=aiohttp.ClientTimeout(_PATIENCE)
        ) as client:
            began = time.perf_counter()
            await asyncio.gather(*(self._session(client, number) for number in range(self._sessions)))
            self._outcome.seconds = time.perf_counter() - began
        return self._outcome

    async def _session(self, client: aiohttp.ClientSession, session: int) -> None:
        for number in self._numbers:
            trip = Trip(number, time.perf_counter())
            messages = [{"role": "user", "content": prompt(number)}]
            salt = {} if self._salt is None else {"cache_salt": f"{self._salt}-{session}"}
            body = {**self._rest, "messages": messages, **salt}
            async with client.post(self._url, json=body) as response:
                await (_read_events if self._stream else _read_answer)(response, trip)
            trip.wrong = not trip.tokens  # the last that is said
            self._outcome.add(trip, time.perf_counter())


async def _read_answer(response: aiohttp.ClientResponse, trip: Trip) -> None:
    answer = json.loads(await response.read())
    trip.tokens = (answer.get("usage") or {}).get("completion_tokens", 0)


async def _read_events(response: aiohttp.ClientResponse, trip: Trip) -> None:
    """Parses no more events than it must: up to the first text, and the one with the usage. Each between is a delta."""
    async for line in response.content:
        if not line.startswith(_DATA) or line.startswith(b"data: [DONE]"):
            continue
        if trip.first is None or b'"choices":[]' in line:
            event = json.loads(line.removeprefix(_DATA))
            choices = event.get("choices")  # an error has none, nor what would come after it
            if choices and choices[0]["delta"].get("content"):
                trip.delta()
            if event.get("usage"):
                trip.tokens = event["usage"]["completion_tokens"]
        else:
            trip.delta()


def run(port: int, **options: Any) -> Outcome:
    """Make the load from outside of any event loop; arguments as for `HttpLoad`.

    Raises:
        TimeoutError: not every answer came in time.
        ValueError: the server failed a request.
    """

    async def load() -> Outcome:
        return await HttpLoad(port, **options).run()

    try:
        return asyncio.run(load())
    except aiohttp.ClientError as error:
        raise ValueError(f"the server failed a request: {error}") from error
