"""An engine without a model: it echoes the last message, word by word, with the latency and failures it is told.

For tests, benchmarks and checking the wiring. A token of an answer is a word with the spaces around it. One thread
paces all answers, as one loop drives all of a real engine's.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inferbus_worker.chat import FinishReason, Message, Usage
from inferbus_worker.engines.base import (
    CancelledGenerationError,
    ChatCall,
    Completion,
    ContextTooLongError,
    EngineDeadError,
    EngineError,
    Generation,
    GenerationTimeoutError,
    OnDelta,
)
from inferbus_worker.engines.pending import PendingGeneration

_TOKEN = re.compile(r"\s*\S+\s*")
_CONTEXT_TOKENS = 32768
# Prompts are estimated, not split into words: they hold whole histories, and this engine is to cost next to nothing.
_CHARACTERS_PER_TOKEN = 4
_COUNTED_MESSAGES = 8
#: Seconds that the pacing thread sleeps at least, so that many tokens that are due cost it one waking.
_QUANTUM: Final = 0.002
#: Answers that nobody waits for any more, kept beyond as many again as are waited for, before they are swept out.
_FAR_ECHOES: Final = 64

log = logging.getLogger("inferbus.simulated")


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
    """See `engines.base.Engine`."""

    model = "simulated"
    context_tokens = _CONTEXT_TOKENS
    death: EngineDeadError | None = None

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.capacity = behaviour.capacity
        self._pacer = _Pacer()

    @property
    def running(self) -> int:
        return len(self._pacer)

    def start(self) -> None:
        """See `Engine.start`. Without pacing there is nothing to bring up."""
        if self.behaviour.is_paced:
            self._pacer.start()

    def stop(self, timeout: float) -> None:
        """See `Engine.stop`."""
        self._pacer.stop(timeout)

    def generate(self, call: ChatCall, on_delta: OnDelta | None = None) -> Generation:
        """See `Engine.generate`."""
        answer = self._answer(call)
        if self.behaviour.is_paced and isinstance(answer, Completion):
            return _PacedEcho(self._pacer, answer, self.behaviour, call, on_delta)
        return _Echo(answer, on_delta)

    def count_tokens(self, text: str) -> int:
        """See `Engine.count_tokens`: an estimate."""
        return len(text) // _CHARACTERS_PER_TOKEN + 1

    def _answer(self, call: ChatCall) -> Completion | EngineError:
        is_the_workers_own = call.cache_salt is None
        if not is_the_workers_own and random.random() < self.behaviour.failure_rate:  # noqa: S311 - no secret
            return EngineError("a simulated failure")
        prompt_tokens = _estimate(call.messages)
        if prompt_tokens >= self.context_tokens:
            return ContextTooLongError()
        text = _last_text(call)
        tokens = _TOKEN.findall(text)[: call.sampling.max_tokens]
        reason: FinishReason = "stop" if sum(map(len, tokens)) == len(text) else "length"
        return Completion("".join(tokens), reason, Usage(prompt_tokens, len(tokens)))


class _Echo:
    """An answer that is there at once."""

    def __init__(self, answer: Completion | EngineError, on_delta: OnDelta | None) -> None:
        self._answer = answer
        self._on_delta = on_delta
        self._is_cancelled = False

    def wait(self, deadline: float | None) -> Completion:
        """See `Generation.wait`."""
        if self._is_cancelled:
            raise CancelledGenerationError
        if isinstance(self._answer, EngineError):
            raise self._answer
        if deadline is not None and deadline <= time.monotonic():
            raise GenerationTimeoutError
        if self._on_delta is not None:
            self._on_delta(self._answer.text, "")
        return self._answer

    def cancel(self) -> None:
        """See `Generation.cancel`."""
        self._is_cancelled = True


class _PacedEcho(PendingGeneration):
    """An answer that comes token by token, from the pacing thread."""

    def __init__(
        self, pacer: _Pacer, answer: Completion, behaviour: Behaviour, call: ChatCall, on_delta: OnDelta | None
    ) -> None:
        super().__init__(on_delta, call.first_token_within, lambda: pacer.drop(self))
        self._answer = answer
        self._tokens = _TOKEN.findall(answer.text)
        self._per_token = behaviour.per_token
        self._said = 0
        first = behaviour.first_token + (behaviour.grammar if call.has_form else 0)
        pacer.add(self, time.monotonic() + first)

    def step(self, due: float) -> float | None:
        """Say the next token, or all that is left where tokens take no time; when the one after it is due."""
        until = self._said + 1 if self._per_token else len(self._tokens)
        self.grow("".join(self._tokens[self._said : until]))
        self._said = until
        if until < len(self._tokens):
            return due + self._per_token
        self.complete(self._answer.finish_reason, self._answer.usage)
        return None


class _Pacer:
    """The thread `simulated-engine`."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, _PacedEcho]] = []
        self._under_way: set[_PacedEcho] = set()
        self._numbers = itertools.count()
        self._sleeps_until = 0.0
        self._changed = threading.Condition(threading.Lock())
        self._is_stopped = False
        self._thread = threading.Thread(target=self._work, name="simulated-engine", daemon=True)

    def __len__(self) -> int:
        return len(self._under_way)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
            left = list(self._under_way)
        for echo in left:
            echo.fail(EngineDeadError("the engine has stopped"))
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def add(self, echo: _PacedEcho, due: float) -> None:
        with self._changed:
            is_late = self._is_stopped
            if not is_late:
                self._under_way.add(echo)
                heapq.heappush(self._due, (due, next(self._numbers), echo))
                if due < self._sleeps_until:
                    self._changed.notify()
        if is_late:
            echo.fail(EngineDeadError("the engine has stopped"))

    def drop(self, echo: _PacedEcho) -> None:
        """It is not waited for any more; its place in the heap goes when it is due, or with many others."""
        with self._changed:
            self._under_way.discard(echo)
            if len(self._due) > 2 * len(self._under_way) + _FAR_ECHOES:
                self._due = [entry for entry in self._due if entry[2] in self._under_way]
                heapq.heapify(self._due)

    def _work(self) -> None:
        while (ready := self._wait()) is not None:
            again = []
            for due, number, echo in ready:
                following = None if echo.is_over else self._step(echo, due)
                if following is not None:
                    again.append((following, number, echo))
                else:
                    self.drop(echo)
            with self._changed:
                for entry in again:
                    heapq.heappush(self._due, entry)

    def _step(self, echo: _PacedEcho, due: float) -> float | None:
        """See `_PacedEcho.step`. Whoever is told of the answer and raises fails it, and no other."""
        try:
            return echo.step(due)
        except Exception:
            log.exception("a simulated answer could not be passed on")
            echo.fail(EngineError("what is told of the answer has raised"))
            return None

    def _wait(self) -> list[tuple[float, int, _PacedEcho]] | None:
        """Sleep until answers are due, and take them; None: the end."""
        with self._changed:
            while not self._is_stopped:
                now = time.monotonic()
                ready = []
                while self._due and self._due[0][0] <= now:
                    ready.append(heapq.heappop(self._due))
                if ready:
                    return ready
                pause = max(self._due[0][0] - now, _QUANTUM) if self._due else None
                self._sleeps_until = now + pause if pause is not None else float("inf")
                self._changed.wait(pause)
            return None


def _estimate(messages: Sequence[Message]) -> int:
    """A prompt's length in tokens; what is older than the latest messages counts as much as they do on average."""
    latest = messages[-_COUNTED_MESSAGES:]
    characters = sum(len(_content(message)) for message in latest)
    return characters * len(messages) // len(latest) // _CHARACTERS_PER_TOKEN + 1


def _last_text(call: ChatCall) -> str:
    content = _content(call.messages[-1])
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _content(message: Message) -> str | Sequence[Mapping[str, Any]]:
    """What a message says; one that calls tools may say nothing."""
    content: str | Sequence[Mapping[str, Any]] | None = message.get("content")
    return content or ""
