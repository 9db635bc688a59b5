"""One request in the eyes of those who trace it: the worker's spans, where it makes some, and what is handed on.

A request that brings no trace along has nothing of this, unless the worker makes spans itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from inferbus_client.contract.trace import TraceContext
from inferbus_client.contract.wire import Failure
from inferbus_client.tracing import names
from inferbus_client.tracing.spans import Attributes, Span, Tracer
from inferbus_worker.chat import FinishReason, Usage
from inferbus_worker.outcome import Answered

#: Bytes, about, of one without what a stranger has written.
_BYTES: Final = 256


class RequestTrace:
    """From the request's arrival to its terminal reply.

    Args:
        tracer: makes the spans; None: what the request has brought along is handed on.
        incoming: that; None only where there is a tracer.
        verb: what kind of a message it is.
        project: whose.

    Attributes:
        told: user properties of its replies; none where it has brought none along.
        size: bytes of memory, about.
    """

    __slots__ = ("_context", "_request", "_tracer", "_wait", "size", "told")

    def __init__(self, tracer: Tracer | None, incoming: TraceContext | None, verb: str, project: str) -> None:
        self._tracer = tracer
        self._request: Span | None = None
        self._wait: Span | None = None
        self._context = incoming
        if tracer is not None:
            attributes: Attributes = {names.MESSAGING: "mqtt", names.VERB: verb, names.PROJECT: project}
            self._request = tracer.begin(names.REQUEST, "server", incoming, attributes)
            self._context = self._request.context
        context = self._context
        self.told = () if incoming is None or context is None else context.pairs
        self.size = _BYTES + (0 if context is None else context.size)

    def waits(self) -> None:
        """It goes into the queue."""
        if self._tracer is not None:
            self._wait = self._tracer.begin(names.QUEUE, "internal", self._context)

    @contextmanager
    def turn(self, slot: str, attempt: int) -> Iterator[Turn]:
        """Around its turn: it has been taken from the queue.

        Args:
            slot: where it runs.
            attempt: how often it has been taken, this time included.
        """
        if self._tracer is None:
            yield Turn(None, self._context)
            return
        self._end_wait(None)
        attributes: Attributes = {names.SLOT: slot, names.ATTEMPT: attempt}
        with self._tracer.begin(names.TURN, "internal", self._context, attributes) as span:
            yield Turn(self._tracer, span.context)

    def end(self, outcome: Answered | Failure) -> None:
        """Its terminal reply is said."""
        if self._request is None:
            return
        failure = outcome.code if isinstance(outcome, Failure) else None
        self._end_wait(failure)
        if isinstance(outcome, Answered):
            self._request.note(
                {
                    names.ANSWERED_BY: outcome.model,
                    names.BEGAN_AFTER: None if outcome.timings is None else outcome.timings.first_token,
                    **_of_answer(outcome.finish_reason, outcome.usage),
                }
            )
        self._request.end(failure)

    def _end_wait(self, failure: str | None) -> None:
        wait, self._wait = self._wait, None
        if wait is not None:
            wait.end(failure)


class Turn:
    """One turn of the request, in one slot."""

    __slots__ = ("_context", "_tracer")

    def __init__(self, tracer: Tracer | None, context: TraceContext | None) -> None:
        self._tracer = tracer
        self._context = context

    @contextmanager
    def generation(self, model: str, *, temperature: float, top_p: float, max_tokens: int) -> Iterator[Generating]:
        """Around one call of the engine, whatever it raises."""
        if self._tracer is None:
            yield Generating(None, self._context)
            return
        attributes: Attributes = {
            names.OPERATION: "chat",
            names.MODEL: model,
            names.TEMPERATURE: temperature,
            names.TOP_P: top_p,
            names.MAX_TOKENS: max_tokens,
        }
        with self._tracer.begin(names.ENGINE, "client", self._context, attributes) as span:
            yield Generating(span, span.context)


class Generating:
    """One call of the engine; `context` is for the engine to take along."""

    __slots__ = ("_span", "context")

    def __init__(self, span: Span | None, context: TraceContext | None) -> None:
        self._span = span
        self.context = context

    def answered(self, finish_reason: FinishReason, usage: Usage) -> None:
        if self._span is not None:
            self._span.note(_of_answer(finish_reason, usage))


def _of_answer(finish_reason: FinishReason, usage: Usage | None) -> Attributes:
    if usage is None:
        return {}
    return {
        names.FINISH_REASONS: [finish_reason],
        names.INPUT_TOKENS: usage.prompt_tokens,
        names.OUTPUT_TOKENS: usage.completion_tokens,
    }
