"""An engine without a model: it echoes the last message, word by word, with the latency and failures it is told.

For tests, benchmarks and checking the wiring. A token of an answer is a word with the spaces around it. One thread
paces all answers, as one loop drives all of a real engine's.
"""

from __future__ import annotations

import heapq
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
    CHARACTERS_PER_TOKEN,
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
from inferbus_worker.engines.simulated_calls import called, in_one_piece
from inferbus_worker.engines.tool_calls import ToolCalls

_TOKEN = re.compile(r"\s*\S+\s*")
_CONTEXT_TOKENS = 32768
# Prompts are estimated, not split into words: they hold whole histories, and this engine is to cost next to nothing.
_COUNTED_MESSAGES = 8
#: Seconds that a moment has: tokens that are due in the same one cost the pacing thread one waking.
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

    context_tokens = _CONTEXT_TOKENS
    death: EngineDeadError | None = None
    headroom: float | None = None
    leaked = 0
    counts_exactly = False
    memory_bytes: int | None = None

    def __init__(self, behaviour: Behaviour, model: str = "simulated") -> None:
        self.behaviour = behaviour
        self.model = model
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
        return len(text) // CHARACTERS_PER_TOKEN + 1

    def _answer(self, call: ChatCall) -> Completion | EngineError:
        is_the_workers_own = call.cache_salt is None
        if not is_the_workers_own and random.random() < self.behaviour.failure_rate:  # noqa: S311 - no secret
            return EngineError("a simulated failure")
        prompt_tokens = _estimate(call.messages)
        if prompt_tokens >= self.context_tokens:
            return ContextTooLongError()
        text = _last_text(call)
        tokens = _TOKEN.findall(text)[: call.sampling.max_tokens]
        usage = Usage(prompt_tokens, len(tokens))
        reason: FinishReason = "stop" if sum(map(len, tokens)) == len(text) else "length"
        try:
            calls = called(call, text) if call.tools is not None and reason == "stop" else ()
        except EngineError as error:
            return error
        return Completion("", "tool_calls", usage, "", calls) if calls else Completion("".join(tokens), reason, usage)


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
            if self._answer.tool_calls:
                self._on_delta("", "", in_one_piece(self._answer))
            else:
                self._on_delta(self._answer.text, "")
        return self._answer

    def cancel(self) -> None:
        """See `Generation.cancel`."""
        self._is_cancelled = True


class _PacedEcho(PendingGeneration):
    """An answer that comes token by token, from the pacing thread.

    Attributes:
        due: when its next token is, in seconds on the monotonic clock.
    """

    def __init__(
        self, pacer: _Pacer, answer: Completion, behaviour: Behaviour, call: ChatCall, on_delta: OnDelta | None
    ) -> None:
        calls = ToolCalls() if answer.tool_calls else None
        super().__init__(on_delta, call.first_token_within, lambda: pacer.drop(self), calls)
        self._answer = answer
        self._tokens = _TOKEN.findall(answer.text)
        self._per_token = behaviour.per_token
        self._said = 0
        self.due = time.monotonic() + behaviour.first_token + (behaviour.grammar if call.has_grammar else 0)
        pacer.add(self)

    def step(self) -> bool:
        """Say the next token, or all that is left where tokens take no time; whether there is another one."""
        if self._answer.tool_calls:
            self.grow("", "", in_one_piece(self._answer))
            self.complete(self._answer.finish_reason, self._answer.usage)
            return False
        said, tokens = self._said, self._tokens
        until = self._said = said + 1 if self._per_token and tokens else len(tokens)
        self.grow(tokens[said] if until == said + 1 else "".join(tokens[said:]))
        if until < len(tokens):
            self.due += self._per_token
            return True
        self.complete(self._answer.finish_reason, self._answer.usage)
        return False


class _Pacer:
    """The thread `simulated-engine`. Answers that are due in the same moment wait together: a wheel of moments."""

    def __init__(self) -> None:
        self._moments: list[int] = []  # a heap
        self._due_at: dict[int, list[_PacedEcho]] = {}
        self._waiting = 0
        self._under_way: set[_PacedEcho] = set()
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

    def add(self, echo: _PacedEcho) -> None:
        with self._changed:
            is_late = self._is_stopped
            if not is_late:
                self._under_way.add(echo)
                self._put(echo)
                if echo.due < self._sleeps_until:
                    self._changed.notify()
        if is_late:
            echo.fail(EngineDeadError("the engine has stopped"))

    def drop(self, echo: _PacedEcho) -> None:
        """It is not waited for any more; its place goes when it is due, or with many others."""
        with self._changed:
            self._under_way.discard(echo)
            if self._waiting > 2 * len(self._under_way) + _FAR_ECHOES:
                waiting = [echo for echoes in self._due_at.values() for echo in echoes if echo in self._under_way]
                self._moments, self._due_at, self._waiting = [], {}, 0
                for each in waiting:
                    self._put(each)

    def _put(self, echo: _PacedEcho) -> None:
        moment = int(echo.due / _QUANTUM) + 1
        echoes = self._due_at.get(moment)
        if echoes is None:
            echoes = self._due_at[moment] = []
            heapq.heappush(self._moments, moment)
        echoes.append(echo)
        self._waiting += 1

    def _work(self) -> None:
        while (ready := self._wait()) is not None:
            again: list[_PacedEcho] = []
            ended: list[_PacedEcho] = []
            for echo in ready:
                (again if not echo.is_over and self._step(echo) else ended).append(echo)
            with self._changed:
                self._under_way.difference_update(ended)
                for echo in again:
                    self._put(echo)

    def _step(self, echo: _PacedEcho) -> bool:
        """See `_PacedEcho.step`. Whoever is told of the answer and raises fails it, and no other."""
        try:
            return echo.step()
        except Exception:
            log.exception("a simulated answer could not be passed on")
            echo.fail(EngineError("what is told of the answer has raised"))
            return False

    def _wait(self) -> list[_PacedEcho] | None:
        """Sleep until answers are due, and take them; None: the end."""
        with self._changed:
            while not self._is_stopped:
                now = time.monotonic()
                ready: list[_PacedEcho] = []
                while self._moments and self._moments[0] * _QUANTUM <= now:
                    ready += self._due_at.pop(heapq.heappop(self._moments))
                if ready:
                    self._waiting -= len(ready)
                    return ready
                pause = self._moments[0] * _QUANTUM - now if self._moments else None
                self._sleeps_until = float("inf") if pause is None else now + pause
                self._changed.wait(pause)
            return None


def _estimate(messages: Sequence[Message]) -> int:
    """A prompt's length in tokens; what is older than the latest messages counts as much as they do on average."""
    latest = messages[-_COUNTED_MESSAGES:]
    characters = sum(len(_content(message)) for message in latest)
    return characters * len(messages) // len(latest) // CHARACTERS_PER_TOKEN + 1


def _last_text(call: ChatCall) -> str:
    content = _content(call.messages[-1])
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _content(message: Message) -> str | Sequence[Mapping[str, Any]]:
    """What a message says; one that calls tools may say nothing."""
    content: str | Sequence[Mapping[str, Any]] | None = message.get("content")
    return content or ""
