"""An engine that is a server across the network."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import ModuleType
from typing import Any, Final

from inferbus_worker.engines.base import (
    BackendError,
    ChatCall,
    EngineDeadError,
    EngineError,
    EngineStartError,
    OnDelta,
)
from inferbus_worker.engines.loop_generation import Chunk, LoopGeneration
from inferbus_worker.engines.remote import anthropic_shape, ollama_shape, openai_shape
from inferbus_worker.engines.remote.connections import Connections, parsed
from inferbus_worker.engines.remote.errors import broken, in_stream, refusal
from inferbus_worker.engines.remote.loop import RemoteLoop
from inferbus_worker.engines.remote.place import RemotePlace, remote_place
from inferbus_worker.engines.remote.probes import Served, ask_around, figure_told
from inferbus_worker.engines.remote.rate_windows import RateWindows
from inferbus_worker.engines.remote.slot_watch import SlotWatch
from inferbus_worker.engines.remote.tokens import TokenCounter
from inferbus_worker.seldom import Once

__all__ = ["RemoteEngine", "RemotePlace", "remote_place"]

#: Seconds for all that is asked before the first call; each question has its own bound.
_START: Final = 60.0
#: Characters of an answer for each token that was asked for, and besides: what is more is no answer to our call.
_CHARACTERS_PER_TOKEN: Final = 64
_CHARACTERS: Final = 4096

log = logging.getLogger("inferbus.remote")


class RemoteEngine:
    """See `engines.base.Engine`.

    Args:
        place: where the server is.
        loop: of all remote engines; started before `start` is called, and stopped after `stop`.
        remarks: where it is remembered what has been said of this server, or of those that were in its place.
    """

    death: EngineDeadError | None = None
    memory_bytes: int | None = None

    def __init__(self, place: RemotePlace, loop: RemoteLoop, remarks: Once | None = None) -> None:
        self.place = place
        self._loop = loop
        self._remarks = remarks or Once(log)
        self._connections: Connections | None = None
        self._served: Served | None = None
        self._windows = RateWindows()
        self._tokens = TokenCounter(place, loop, self._remarks)
        self._generations: set[asyncio.Task[Any]] = set()
        self._slots: SlotWatch | None = None
        self._is_stopped = False

    @property
    def model(self) -> str:
        return self._served.model if self._served else self.place.model or ""

    @property
    def capacity(self) -> int:
        """What comes naturally to such a server; see `told_capacity`."""
        return self.place.row.concurrency

    @property
    def told_capacity(self) -> int | None:
        """How many requests at once the server says it takes; None where it does not say."""
        return self._served.capacity if self._served else None

    @property
    def context_tokens(self) -> int:
        told = self._served.context if self._served else None
        return self.place.context or self._own_context or told or self.place.row.default_context

    @property
    def running(self) -> int:
        return len(self._generations)

    @property
    def headroom(self) -> float | None:
        return self._windows.headroom

    @property
    def leaked(self) -> int:
        return self._slots.leaked if self._slots else 0

    @property
    def counts_exactly(self) -> bool:
        return self._tokens.is_exact

    def start(self) -> None:
        """See `Engine.start`. May be called again, also while generations are under way.

        Raises:
            EngineStartError: the server is not there, not of its kind, or does not serve the model; a sentence that
                names its address and a remedy.
        """
        try:
            self._loop.run(self._begin(), _START)
        except TimeoutError:
            why = "was stopped while it was asked" if self._is_stopped else "takes too long to answer"
            raise EngineStartError(f"{self.place.row.label} at {self.place.shown_url} {why}.") from None
        except ImportError as error:
            raise EngineStartError(
                f"{error.name} is not installed: pip install 'inferbus-worker[remote]' brings it along."
            ) from None

    def generate(self, call: ChatCall, on_delta: OnDelta | None = None) -> LoopGeneration:
        """See `Engine.generate`. The server is always asked for a stream: only that ends with its connection."""
        answer, within = self._answer(call), call.first_token_within
        return LoopGeneration(self._loop.loop, answer, on_delta, first_within=within, tools=call.tools)

    def count_tokens(self, text: str) -> int:
        """See `Engine.count_tokens`."""
        return self._tokens.count(text)

    def stop(self, timeout: float) -> None:
        """See `Engine.stop`."""
        self._is_stopped = True
        with contextlib.suppress(TimeoutError):
            self._loop.run(self._end(), timeout)

    @property
    def _own_context(self) -> int | None:
        """What the operator makes Ollama load the model with."""
        own = self.place.options.get("num_ctx")
        return own if self.place.row.shape == "ollama" and isinstance(own, int) and own > 0 else None

    @property
    def _known(self) -> Sequence[str]:
        """Names of models that the server has, as far as it tells."""
        return self._served.names if self._served else ()

    # From here on: the loop's thread.

    async def _begin(self) -> None:
        if self._connections is None:
            self._connections = Connections(self.place, lambda _, headers: self._windows.tell(headers))
        connections, self._is_stopped = self._connections, False
        try:
            self._served = await ask_around(self.place, connections)
        except Exception:
            if self._is_stopped:  # which has closed the connections, whatever became of the question
                raise TimeoutError from None
            raise
        finally:
            if self._served is None:  # nobody may ever stop what has never started
                self._connections = None
                await connections.close()
        await self._tokens.begin(connections, self._served.model)
        if self._slots is None and self.place.row.busy is not None:
            self._slots = SlotWatch(self.place.name or self.place.shown_url, lambda: self.running, self._busy)
            await self._slots.begin()
        told = self.place.context or self._own_context or self._served.context
        if told is None:
            self._remarks.say(
                logging.WARNING,
                "no context",
                "%s at %s does not tell how long a prompt may be: %d tokens are assumed, `context` says it better",
                *(self.place.row.label, self.place.shown_url, self.context_tokens),
            )
        log.debug("%s at %s serves %s: %s", self.place.row.label, self.place.shown_url, self.model, self._served)

    async def _busy(self) -> int | None:
        if self._connections is None or self.place.row.busy is None:
            return None
        return await figure_told(self._connections, self.place.row.busy, self.model)

    async def _end(self) -> None:
        for task in self._generations:
            task.cancel()
        if self._slots is not None:
            self._slots.stop()
        await asyncio.gather(*self._generations, return_exceptions=True)
        connections, self._connections = self._connections, None
        if connections is not None:
            await connections.close()

    async def _answer(self, call: ChatCall) -> AsyncGenerator[Chunk, None]:
        """Yield the answer's chunks, the last with finish reason and usage.

        Raises:
            EngineError: one of the tree in `base`.
        """
        connections, task = self._connections, asyncio.current_task()
        if connections is None or task is None or self._is_stopped:
            raise BackendError(f"{self.place.name or self.place.shown_url} has not been started", "connection")
        self._generations.add(task)
        has_begun = is_over = False
        try:
            shape = self._shape(call)
            chunks = shape.answer(self.place, self.model, self.context_tokens, call, connections)
            async with contextlib.aclosing(_bounded(chunks, call)) as bounded:
                async for chunk in bounded:
                    is_over = chunk.finish_reason is not None
                    has_begun = True
                    # It tells that the answer grows, also while all of it is hidden.
                    yield chunk if call.thinking == "show" else chunk._replace(reasoning="")
            is_over = True
        except EngineError:
            is_over = True
            raise
        except Exception as error:  # noqa: BLE001 - a stranger's answer, through libraries that raise of their own
            is_over = True
            raise self._translated(error, has_begun=has_begun) from None
        finally:
            self._generations.discard(task)
            if not is_over and self._slots is not None and not self._is_stopped:
                self._slots.given_up()

    def _shape(self, call: ChatCall) -> ModuleType:
        if self.place.row.shape == "anthropic":
            return anthropic_shape
        if self.place.row.shape == "ollama" and ollama_shape.is_needed(self.place, call):
            return ollama_shape
        return openai_shape

    def _translated(self, error: Exception, *, has_begun: bool) -> EngineError:
        """Our error for one that a library raised: it knows a status, an error's body, or what broke."""
        status, body = getattr(error, "status_code", None), getattr(error, "body", None)
        headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
        if isinstance(status, int) and status not in range(200, 300):
            whole = parsed(error.response.text) if hasattr(error, "response") else body  # TGI's kind stands beside it
            return refusal(self.place, status, headers, whole, self._known)
        if body is not None:
            return in_stream(self.place, body, headers, self._known)
        return broken(self.place, error, has_begun=has_begun)


async def _bounded(chunks: AsyncGenerator[Chunk, None], call: ChatCall) -> AsyncGenerator[Chunk, None]:
    left = _CHARACTERS + _CHARACTERS_PER_TOKEN * call.sampling.max_tokens
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            left -= len(chunk.text) + len(chunk.reasoning) + sum(len(call.arguments) for call in chunk.calls)
            if left < 0:
                raise BackendError("the server answers at greater length than it was asked for", "cut")
            yield chunk
