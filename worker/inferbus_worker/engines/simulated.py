"""An engine without a model: it echoes the last message, word by word, with the latency and failures it is told.

For tests, benchmarks and checking the wiring. A token of an answer is a word with the spaces around it.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

from inferbus_worker.chat import FinishReason, Message, Usage
from inferbus_worker.engines.base import (
    CancelledGenerationError,
    ChatCall,
    Chunk,
    ContextTooLongError,
    EngineDeadError,
    EngineError,
    FirstTokenTimeoutError,
    GenerationTimeoutError,
)

_TOKEN = re.compile(r"\s*\S+\s*")
_CONTEXT_TOKENS = 32768
# Prompts are estimated, not split into words: they hold whole histories, and this engine is to cost next to nothing.
_CHARACTERS_PER_TOKEN = 4
_COUNTED_MESSAGES = 8
_content = itemgetter("content")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Seconds to the first and to each further token, and to a grammar; how many at once; the share that fails."""

    first_token: float = 0.0
    per_token: float = 0.0
    capacity: int = 256
    failure_rate: float = 0.0
    grammar: float = 0.0

    @property
    def is_paced(self) -> bool:
        return self.first_token > 0 or self.per_token > 0 or self.grammar > 0


class SimulatedEngine:
    """See `engines.base.Engine`. Each generation runs in the thread that reads it."""

    model = "simulated"
    context_tokens = _CONTEXT_TOKENS
    death: EngineDeadError | None = None

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.capacity = behaviour.capacity
        self.running = 0
        self._lock = threading.Lock()

    def start(self) -> None:
        """Nothing to bring up."""

    def stop(self, timeout: float) -> None:
        """Nothing to end."""

    def generate(self, call: ChatCall) -> _Echo:
        return _Echo(self, call)

    def count_tokens(self, text: str) -> int:
        return len(text) // _CHARACTERS_PER_TOKEN + 1

    def count(self, change: int) -> None:
        with self._lock:
            self.running += change


class _Echo:
    def __init__(self, engine: SimulatedEngine, call: ChatCall) -> None:
        self._engine = engine
        self._call = call
        self._is_cancelled = False
        # Only who waits has to be woken; without it an unpaced echo makes no objects of its own.
        self._waker = threading.Event() if engine.behaviour.is_paced else None

    def cancel(self) -> None:
        self._is_cancelled = True
        if self._waker is not None:
            self._waker.set()

    def chunks(self, deadline: float | None) -> Iterator[Chunk]:
        self._engine.count(1)
        try:
            yield from self._echo(deadline)
        finally:
            self._engine.count(-1)

    def _echo(self, deadline: float | None) -> Iterator[Chunk]:
        behaviour, text = self._engine.behaviour, _last_text(self._call)
        is_the_workers_own = self._call.cache_salt is None
        if not is_the_workers_own and random.random() < behaviour.failure_rate:  # noqa: S311 - no secret
            raise EngineError("a simulated failure")
        prompt_tokens = _estimate(self._call.messages)
        if prompt_tokens >= self._engine.context_tokens:
            raise ContextTooLongError
        tokens = _TOKEN.findall(text)[: self._call.sampling.max_tokens]
        reason: FinishReason = "stop" if sum(map(len, tokens)) == len(text) else "length"
        usage = Usage(prompt_tokens, len(tokens))
        if behaviour.is_paced:
            yield from self._paced(tokens, deadline)
            yield Chunk(finish_reason=reason, usage=usage)
            return
        self._sleep(0, deadline)
        yield Chunk("".join(tokens), finish_reason=reason, usage=usage)

    def _paced(self, tokens: list[str], deadline: float | None) -> Iterator[Chunk]:
        """The tokens, each in its time, handed on together where they come closer than the call's interval."""
        behaviour, interval = self._engine.behaviour, self._call.chunk_interval
        waiting: list[str] = []
        last = time.monotonic()
        first = behaviour.first_token + (behaviour.grammar if self._call.has_form else 0)
        within = self._call.first_token_within
        if within is not None and first > within:
            self._sleep(within, deadline)
            raise FirstTokenTimeoutError(within)
        for number, token in enumerate(tokens):
            self._sleep(behaviour.per_token if number else first, deadline)
            waiting.append(token)
            if interval is not None and (now := time.monotonic()) - last >= interval:
                yield Chunk("".join(waiting))
                waiting, last = [], now
        if waiting:
            yield Chunk("".join(waiting))

    def _sleep(self, seconds: float, deadline: float | None) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        is_late = left is not None and left <= seconds
        if self._waker is not None and not self._is_cancelled:
            self._waker.wait(seconds if left is None else max(min(seconds, left), 0))
        if self._is_cancelled:
            raise CancelledGenerationError
        if is_late:
            raise GenerationTimeoutError


def _estimate(messages: Sequence[Message]) -> int:
    """A prompt's length in tokens; what is older than the latest messages counts as much as they do on average."""
    latest = messages[-_COUNTED_MESSAGES:]
    characters = sum(map(len, map(_content, latest)))
    return characters * len(messages) // len(latest) // _CHARACTERS_PER_TOKEN + 1


def _last_text(call: ChatCall) -> str:
    content = call.messages[-1]["content"]
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")
