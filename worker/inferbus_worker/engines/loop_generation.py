"""An answer on the engine's event loop, for a worker thread to wait for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import NamedTuple

from inferbus_worker.chat import CallDelta, FinishReason, ToolUse, Usage
from inferbus_worker.engines.base import EngineDeadError, EngineError, OnDelta
from inferbus_worker.engines.pending import PendingGeneration
from inferbus_worker.engines.tool_calls import ToolCalls

#: The name of every asyncio task that runs a generation.
GENERATION_TASK = "generation"


class Chunk(NamedTuple):
    """What is new of an answer since the chunk before. The last one alone carries `finish_reason` and `usage`."""

    text: str = ""
    reasoning: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    calls: Sequence[CallDelta] = ()


class LoopGeneration(PendingGeneration):
    """Runs an asynchronous answer on `loop`.

    Args:
        loop: the event loop that owns the engine.
        answer: yields chunks up to the one with a finish reason, or raises an `EngineError`.
        on_delta: told of each chunk, in the loop's thread.
        first_within: seconds until the first chunk must have come; None: any time.
        tools: what the answer may call.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answer: AsyncGenerator[Chunk, None],
        on_delta: OnDelta | None = None,
        *,
        first_within: float | None = None,
        tools: ToolUse | None = None,
    ) -> None:
        calls = None if tools is None or tools.choice == "none" else ToolCalls(only_first=tools.parallel is False)
        super().__init__(on_delta, first_within, lambda: self._on_loop(self._cancel_task), calls)
        self._loop = loop
        self._answer = answer
        self._task: asyncio.Task[None] | None = None
        self._on_loop(self._begin)

    def _on_loop(self, step: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(step)
        except RuntimeError:  # the loop is closed
            self.fail(EngineDeadError("the engine has stopped"))

    # From here on: the loop's thread.

    def _begin(self) -> None:
        if not self.is_over:
            self._task = self._loop.create_task(self._pump(), name=GENERATION_TASK)

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _pump(self) -> None:
        failure = EngineError("the engine ended the answer without a finish reason")
        try:
            async with contextlib.aclosing(self._answer) as answer:
                async for chunk in answer:
                    self.grow(chunk.text, chunk.reasoning, chunk.calls)
                    if chunk.finish_reason is not None and chunk.usage is not None:
                        self.complete(chunk.finish_reason, chunk.usage)
        except EngineError as error:
            failure = error
        except asyncio.CancelledError:
            failure = EngineDeadError("the engine has stopped")
            raise
        finally:
            self.fail(failure)
