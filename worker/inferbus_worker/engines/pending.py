"""Where an engine's thread, which answers, meets a worker thread, which waits for the end of the answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from inferbus_worker.chat import CallDelta, FinishReason, Usage
from inferbus_worker.engines.base import (
    CancelledGenerationError,
    Completion,
    EngineError,
    FirstTokenTimeoutError,
    GenerationTimeoutError,
    OnDelta,
)
from inferbus_worker.engines.tool_calls import ToolCalls


class PendingGeneration:
    """A generation whose reader is woken once: at the end, or when it has waited long enough.

    Args:
        on_delta: told of what the answer grows by.
        first_within: seconds until the answer must have begun; None: any time.
        abandon: tells the engine to stop, since nobody waits any more. Called once at most, from any thread.
        calls: takes the calls of tools, where some are offered.
    """

    def __init__(
        self,
        on_delta: OnDelta | None,
        first_within: float | None,
        abandon: Callable[[], None],
        calls: ToolCalls | None = None,
    ) -> None:
        self._on_delta = on_delta
        self._first_within = first_within
        self._abandon = abandon
        self._texts: list[str] = []
        self._reasonings: list[str] = []
        self._calls = calls
        self._end: Completion | EngineError | None = None
        self._lock = threading.Lock()
        self._has_begun = threading.Event() if first_within is not None else None
        # Released once, at the end. One thread waits: a lock is all that it takes to sleep on, a fifth of an event.
        self._is_running = threading.Lock()
        self._is_running.acquire()

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for more: it has ended, was cancelled, or took too long."""
        return self._end is not None

    # --- the engine's side ---

    def grow(self, text: str, reasoning: str = "", calls: Sequence[CallDelta] = ()) -> None:
        """Note what is new of the answer.

        Raises:
            EngineError: it calls what nobody has offered, or too much of it.
        """
        if self._end is not None:
            return
        if self._has_begun is not None:
            self._has_begun.set()
        if text:
            self._texts.append(text)
        if reasoning:
            self._reasonings.append(reasoning)
        if calls:
            if self._calls is None:
                raise EngineError("the model called a tool, which nobody has offered it")
            calls = self._calls.grow(calls)
        if self._on_delta is None:
            return
        if calls:
            self._on_delta(text, reasoning, calls)
        else:
            self._on_delta(text, reasoning)

    def complete(self, finish_reason: FinishReason, usage: Usage) -> None:
        """The answer is whole; one that was cut at its longest calls nothing, since a part of a plan is no plan."""
        calls = () if self._calls is None or finish_reason == "length" else self._calls.whole()
        if finish_reason != "length":
            finish_reason = "tool_calls" if calls else "stop"
        self._settle(Completion("".join(self._texts), finish_reason, usage, "".join(self._reasonings), calls))

    def fail(self, error: EngineError) -> None:
        """There will be no answer. Without effect after an end."""
        self._settle(error)

    # --- the reader's side ---

    def wait(self, deadline: float | None) -> Completion:
        """See `Generation.wait`."""
        if self._has_begun is not None and self._first_within is not None:
            first_by = time.monotonic() + self._first_within
            is_first_sooner = deadline is None or first_by < deadline
            if is_first_sooner and not self._has_begun.wait(self._first_within):
                self._give_up(FirstTokenTimeoutError(self._first_within))
        if self._end is None:
            left = -1 if deadline is None else max(deadline - time.monotonic(), 0)
            if not self._is_running.acquire(timeout=left):
                self._give_up(GenerationTimeoutError())
        end = self._end
        if isinstance(end, Completion):
            return end
        raise end or EngineError("the generation ended without an end")

    def cancel(self) -> None:
        """See `Generation.cancel`."""
        self._give_up(CancelledGenerationError())

    def _give_up(self, error: EngineError) -> None:
        if self._settle(error):
            self._abandon()

    def _settle(self, end: Completion | EngineError) -> bool:
        with self._lock:
            if self._end is not None:
                return False
            self._end = end
        if self._has_begun is not None:
            self._has_begun.set()
        self._is_running.release()
        return True
