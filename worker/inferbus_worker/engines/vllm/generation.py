"""The bridge between the engine's event loop and the worker thread that waits for one answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from queue import Empty, SimpleQueue

from inferbus_worker.engines.base import (
    CancelledGenerationError,
    Chunk,
    EngineDeadError,
    EngineError,
    FirstTokenTimeoutError,
    GenerationTimeoutError,
)

#: The name of every asyncio task that runs a generation.
GENERATION_TASK = "generation"


class LoopGeneration:
    """Runs an asynchronous answer on `loop` and hands its chunks to one thread.

    Args:
        loop: the event loop that owns the engine.
        answer: yields chunks up to the one with a finish reason, or raises an `EngineError`.
        first_within: seconds until the first chunk must have come; None: any time.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answer: AsyncGenerator[Chunk, None],
        *,
        first_within: float | None = None,
    ) -> None:
        self._loop = loop
        self._answer = answer
        self._first_within = first_within
        self._arrivals: SimpleQueue[Chunk | EngineError] = SimpleQueue()
        self._task: asyncio.Task[None] | None = None
        self._abandoned = False  # nobody reads any more: cancelled, timed out, or closed early
        self._cancelled = False
        self._on_loop(self._begin)

    def chunks(self, deadline: float | None) -> Iterator[Chunk]:
        """See `Generation.chunks`."""
        finished = False
        try:
            chunk = self._first(deadline)
            while True:
                finished = chunk.finish_reason is not None
                yield chunk
                if finished:
                    return
                chunk = self._next(deadline)
        finally:
            if not finished:
                self._abandon()

    def cancel(self) -> None:
        """See `Generation.cancel`."""
        self._cancelled = True
        self._arrivals.put(CancelledGenerationError())  # wakes the reader
        self._abandon()

    def _first(self, deadline: float | None) -> Chunk:
        if self._first_within is None:
            return self._next(deadline)
        by = time.monotonic() + self._first_within
        if deadline is not None and deadline <= by:
            return self._next(deadline)
        try:
            return self._next(by)
        except GenerationTimeoutError:
            raise FirstTokenTimeoutError(self._first_within) from None

    def _next(self, deadline: float | None) -> Chunk:
        """The next chunk. Neither a cancel nor the deadline waits for what the engine has to say about it."""
        remaining = None if deadline is None else deadline - time.monotonic()
        if remaining is not None and remaining <= 0:
            raise GenerationTimeoutError
        try:
            arrival = self._arrivals.get(timeout=remaining)
        except Empty:
            raise GenerationTimeoutError from None
        if self._cancelled:
            raise CancelledGenerationError
        if isinstance(arrival, EngineError):
            raise arrival
        return arrival

    def _abandon(self) -> None:
        self._abandoned = True
        self._on_loop(self._cancel_task)

    def _on_loop(self, step: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(step)
        except RuntimeError:  # the loop is closed
            self._arrivals.put(EngineDeadError("the engine has stopped"))

    # From here on: the loop's thread.

    def _begin(self) -> None:
        if not self._abandoned:
            self._task = self._loop.create_task(self._pump(), name=GENERATION_TASK)

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _pump(self) -> None:
        failure = EngineError("the engine ended the answer without a finish reason")
        try:
            async with contextlib.aclosing(self._answer) as answer:
                async for chunk in answer:
                    self._arrivals.put(chunk)
        except EngineError as error:
            failure = error
        except asyncio.CancelledError:
            failure = EngineDeadError("the engine has stopped")
            raise
        finally:
            self._arrivals.put(failure)  # nobody reads it after a finish reason
