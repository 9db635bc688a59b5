"""The same engine without the bus: a process that runs loads on it, as it is told on standard input.

    python -m benchmarks.in_process MODEL [options of vLLM's]

One JSON object a line in (`how`, `sessions`, `requests`, `max_tokens`), one `Outcome` a line out. Ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from inferbus_worker.engines.base import ChatCall, Sampling
from inferbus_worker.engines.vllm.engine import VllmEngine

from .dialects import prompt
from .outcome import Outcome, Trip
from .serving_layer import chat_request

READY: Final = "ready"
_STOP_SECONDS: Final = 10.0


class Load:
    """One load on the engine: `sessions` requests at once, `requests` in all."""

    def __init__(self, engine: VllmEngine, *, sessions: int, requests: int, max_tokens: int) -> None:
        self._engine = engine
        self._sessions = sessions
        self._max_tokens = max_tokens
        self._numbers: Iterator[int] = iter(range(requests))
        self._outcome = Outcome()
        self._lock = threading.Lock()
        self._salt = f"{time.monotonic_ns():x}"  # no run finds another's prefixes in the cache

    def in_threads(self) -> Outcome:
        """As the worker does it: one thread per request under way, `Engine.generate`."""
        threads = [threading.Thread(target=self._thread, args=(number,)) for number in range(self._sessions)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._outcome.seconds = time.perf_counter() - began
        return self._outcome

    def in_asyncio(self, *, stream: bool) -> Outcome:
        """On vLLM's own chat serving layer from its event loop; of ours is no more than how it streams: in chunks."""
        return asyncio.run_coroutine_threadsafe(self._tasks(stream=stream), self._engine._loop).result()  # noqa: SLF001

    def _thread(self, session: int) -> None:
        while True:
            with self._lock:
                number = next(self._numbers, None)
            if number is None:
                return
            trip = Trip(number, time.perf_counter())
            call = ChatCall(_messages(number), Sampling(0.0, 1.0, self._max_tokens), cache_salt=self._salted(session))
            trip.tokens = self._engine.generate(call).wait(None).usage.completion_tokens
            trip.wrong = not trip.tokens
            with self._lock:
                self._outcome.add(trip, time.perf_counter())

    async def _tasks(self, *, stream: bool) -> Outcome:
        began = time.perf_counter()
        await asyncio.gather(*(self._task(number, stream=stream) for number in range(self._sessions)))
        self._outcome.seconds = time.perf_counter() - began
        return self._outcome

    async def _task(self, session: int, *, stream: bool) -> None:
        serving: Any = self._engine._chat._serving  # noqa: SLF001
        for number in self._numbers:
            trip = Trip(number, time.perf_counter())
            request = chat_request(
                _messages(number), max_tokens=self._max_tokens, salt=self._salted(session), stream=stream
            )
            response = await serving.create_chat_completion(request)
            if stream:
                usage = await _read_chunks(response, trip)
            else:
                usage = response.usage
            trip.tokens = usage.completion_tokens
            trip.wrong = not trip.tokens
            self._outcome.add(trip, time.perf_counter())

    def _salted(self, session: int) -> str:
        return f"{self._salt}-{session}"


async def _read_chunks(chunks: Any, trip: Trip) -> Any:
    usage = None
    async for chunk in chunks:
        if chunk.text:
            trip.delta()
        usage = chunk.usage
    return usage


def _messages(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt(number)}]


def main() -> None:
    # vLLM's processes may print; what is read from us is to be ours alone.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    engine = VllmEngine(sys.argv[1], sys.argv[2:])
    try:
        engine.start()
        print(READY, file=answers)
        for line in sys.stdin:
            order = json.loads(line)
            how = order.pop("how")
            load = Load(engine, **order)
            outcome = load.in_threads() if how == "threads" else load.in_asyncio(stream=how == "asyncio_stream")
            print(outcome.encode(), file=answers)
    finally:
        engine.stop(_STOP_SECONDS)


if __name__ == "__main__":
    main()
