"""Spans of a request's way, for OpenTelemetry: in the gateway, the client and the worker, where OTLP is configured.

Off, which is the rule, nothing is imported and there is no tracer; whoever would make spans asks `is None`. No span
holds what was asked or answered, nor whose session or client it was.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Literal, Self

from inferbus_client.contract.trace import TraceContext, read_trace
from inferbus_client.errors import RequestFailedError
from inferbus_client.tracing.names import FAILURE

log = logging.getLogger("inferbus.tracing")

Kind = Literal["server", "client", "consumer", "internal"]
Attributes = Mapping[str, str | int | float | list[str] | None]

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTER: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
#: Loggers of OpenTelemetry's that complain of a collector, as often as there are spans.
_COMPLAINING: Final = ("opentelemetry.sdk._shared_internal", _EXPORTER)
_COMPLAIN_EVERY: Final = 60.0
#: Seconds that the last spans have to leave where a program ends that has not called `Tracer.stop`.
_LAST_WORD: Final = 2.0


class Span:
    """One span. As a context manager it ends with what is raised. Any thread may use it.

    Attributes:
        context: where it stands, for whoever is next on the request's way.
    """

    __slots__ = ("_hush", "_is_over", "_span", "context")

    def __init__(self, span: Any, hush: _Hush) -> None:
        self._span = span
        self._hush = hush
        self._is_over = False
        told = span.get_span_context()
        parent = f"00-{told.trace_id:032x}-{told.span_id:016x}-{told.trace_flags:02x}"
        self.context = TraceContext(parent, told.trace_state.to_header())

    def note(self, attributes: Attributes) -> None:
        """Add attributes; what is None is left out."""
        self._span.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def end(self, failure: str | None = None) -> None:
        """End it, once.

        Args:
            failure: the code that it failed with, and nothing that a requester has said.
        """
        if self._is_over:
            return
        self._is_over = True
        if failure is not None:
            from opentelemetry.trace import StatusCode  # noqa: PLC0415 - only where it is on

            self._span.set_attribute(FAILURE, failure)
            self._span.set_status(StatusCode.ERROR)
        with self._hush:
            self._span.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end(None if error is None else failure_of(error))


def failure_of(error: BaseException) -> str:
    """A code for an error: the contract's, or what kind of error it is. Its text may quote a requester."""
    if isinstance(error, RequestFailedError):
        return error.code
    kind = type(error).__name__
    # By its name: not everybody who traces has an event loop, or imports one.
    return "cancelled" if kind in {"GeneratorExit", "CancelledError"} else kind


class Tracer:
    """Makes spans, which leave for the collector in OpenTelemetry's own thread, from a bounded queue.

    Raises:
        ImportError: the extra is not installed.
        OSError, ValueError: one of the `OTEL_…` variables cannot be meant.
    """

    def __init__(self, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        self._hush = _Hush()
        exporter = OTLPSpanExporter()
        exporter.export = self._hush.around(exporter.export)  # type: ignore[method-assign]
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: service}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("inferbus")
        self._ending, self._ended = threading.Event(), threading.Event()
        # Started now: at a program's end no thread can be.
        threading.Thread(target=self._flush, name="trace-flush", daemon=True).start()
        atexit.register(self.stop, _LAST_WORD)

    def begin(self, name: str, kind: Kind, parent: TraceContext | None, attributes: Attributes | None = None) -> Span:
        """A span that has begun; without a `parent` the first of a trace."""
        from opentelemetry import trace  # noqa: PLC0415 - only where it is on
        from opentelemetry.context import Context  # noqa: PLC0415

        around = Context()
        if parent is not None:
            above = trace.NonRecordingSpan(_span_context(parent))
            around = trace.set_span_in_context(above, around)
        span = Span(self._tracer.start_span(name, around, trace.SpanKind[kind.upper()]), self._hush)
        if attributes is not None:
            span.note(attributes)
        return span

    @staticmethod
    def current() -> TraceContext | None:
        """Where the calling program stands in a trace of its own; None where it is in none."""
        from opentelemetry import trace  # noqa: PLC0415 - only where it is on

        told = trace.get_current_span().get_span_context()
        if not told.is_valid:
            return None
        parent = f"00-{told.trace_id:032x}-{told.span_id:016x}-{told.trace_flags:02x}"
        return read_trace([("traceparent", parent), ("tracestate", told.trace_state.to_header())])

    def finish(self) -> None:
        """Let the last spans leave. Waits for nothing; what comes from now on is dropped."""
        self._ending.set()

    def stop(self, timeout: float) -> bool:
        """The same, and wait for it; whether it was done within `timeout` seconds."""
        atexit.unregister(self.stop)
        self.finish()
        return self._ended.wait(timeout)

    def _flush(self) -> None:
        self._ending.wait()
        with self._hush:
            self._provider.shutdown()
        self._ended.set()


def _span_context(context: TraceContext) -> Any:
    from opentelemetry import trace  # noqa: PLC0415 - only where it is on

    _, trace_id, span_id, flags = context.traceparent.split("-")
    return trace.SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(flags, 16)),
        trace_state=trace.TraceState.from_header([context.tracestate]),
    )


class _Hush(logging.Filter):
    """While inside, in this thread, what OpenTelemetry says of a collector becomes a sentence a minute.

    What it says holds the collector's address, with a password perhaps, and is for level debug; and a collector may be
    away for long.
    """

    def __init__(self) -> None:
        super().__init__()
        self._here = threading.local()
        self._silent_until = 0.0
        for name in _COMPLAINING:
            logging.getLogger(name).addFilter(self)

    def __enter__(self) -> None:
        self._here.is_on = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._here.is_on = False

    def around(self, export: Any) -> Any:
        def hushed(spans: Any) -> Any:
            with self:
                return export(spans)

        return hushed

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(self._here, "is_on", False):
            return True
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + _COMPLAIN_EVERY
            log.warning("the collector of traces does not take our spans; they are dropped, and requests go on")
            log.debug("what OpenTelemetry says of it: %s", record.getMessage())
        return False


_making: Final = threading.Lock()
_made: list[Tracer | None] = []


def process_tracer(service: str) -> Tracer | None:
    """The one tracer of this process; None where tracing is off.

    Args:
        service: what the spans are from, where neither `OTEL_SERVICE_NAME` nor `OTEL_RESOURCE_ATTRIBUTES` says it. Who
            asks first in a process names it.
    """
    if not _is_configured(os.environ):
        return None
    with _making:
        if not _made:
            _made.append(_make(service))
        return _made[0]


def _is_configured(environment: Mapping[str, str]) -> bool:
    is_disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporters = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    return any(map(environment.get, _ENDPOINTS)) and not is_disabled and "otlp" in exporters


def _make(service: str) -> Tracer | None:
    protocol = next(filter(None, map(os.environ.get, _PROTOCOLS)), "http/protobuf")
    if protocol != "http/protobuf":
        log.warning("tracing is off: spans leave over http/protobuf, and OTEL_EXPORTER_OTLP_PROTOCOL asks for another")
        return None
    try:
        return Tracer(service)
    except ImportError:
        wing = "worker" if service == "inferbus-worker" else "client"
        log.warning("tracing is configured, and not installed: pip install 'inferbus-%s[otel]' brings it along", wing)
    except (OSError, ValueError) as error:
        log.warning("tracing is off, since an OTEL_… variable cannot be meant: %s", error)
    return None
