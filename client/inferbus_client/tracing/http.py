"""The span of an HTTP request, for the gateway."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from inferbus_client.contract.trace import TraceContext, read_trace
from inferbus_client.tracing.names import HTTP, METHOD, ROUTE, STATUS
from inferbus_client.tracing.spans import Span, Tracer

_FIRST_SERVER_ERROR: Final = 500


class HttpSpan:
    """An HTTP request as the gateway has it.

    Attributes:
        trace_headers: what its request on the bus takes along (`AskOptions`); None where there is nothing.
    """

    def __init__(self, span: Span | None, incoming: TraceContext | None) -> None:
        self._span = span
        context = incoming if span is None else span.context
        self.trace_headers = None if context is None else context.headers

    def answered(self, status: int, failure: str | None = None) -> None:
        """Tell how it was answered.

        Args:
            status: HTTP's.
            failure: the contract's code, where it was refused or failed.
        """
        if self._span is None:
            return
        self._span.note({STATUS: status})
        if failure is not None or status >= _FIRST_SERVER_ERROR:
            self._span.end(failure or str(status))


@contextmanager
def http_span(tracer: Tracer | None, method: str, route: str, headers: Iterable[tuple[str, str]]) -> Iterator[HttpSpan]:
    """A span of the kind `server` around an HTTP request; without a tracer what came is handed on, where it is sound.

    Args:
        tracer: the process's.
        method: HTTP's.
        route: the path's pattern, never the path: a stranger writes that.
        headers: as they came, repeated ones too.
    """
    incoming = read_trace([(name.lower(), value) for name, value in headers])
    if tracer is None:
        yield HttpSpan(None, incoming)
        return
    with tracer.begin(HTTP, "server", incoming, {METHOD: method, ROUTE: route}) as span:
        yield HttpSpan(span, incoming)
