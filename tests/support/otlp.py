"""A collector of OpenTelemetry's: takes spans over HTTP, or hangs, or refuses them."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.mosquitto import HOST
from support.waiting import until

#: What it does with spans.
Mood = Literal["takes", "hangs", "refuses"]


@dataclass(frozen=True)
class Told:
    """One span, as it came."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    kind: int
    start: int
    end: int
    failed: bool
    attributes: dict[str, Any]


class Collector:
    """A context manager: inside, it takes spans at `url`."""

    def __init__(self, mood: Mood = "takes") -> None:
        self.spans: list[Told] = []
        self.asked = 0
        self.raw = b""
        self._free = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.asked += 1
                if mood == "hangs":
                    collector._free.wait(60)
                if mood == "takes":
                    collector.take(gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
                self.send_response(200 if mood == "takes" else 400)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing to say."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """Whoever was kept waiting has gone."""

        self._server = Server((HOST, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a program that is to send its spans here, soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "20"}

    def take(self, body: bytes) -> None:
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _plain(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                self.spans += [
                    Told(
                        service=service,
                        name=span.name,
                        trace=span.trace_id.hex(),
                        id=span.span_id.hex(),
                        parent=span.parent_span_id.hex(),
                        kind=span.kind,
                        start=span.start_time_unix_nano,
                        end=span.end_time_unix_nano,
                        failed=span.status.code == span.status.STATUS_CODE_ERROR,
                        attributes=_plain(span.attributes),
                    )
                    for span in scope.spans
                ]

    def of(self, trace: str) -> dict[str, Told]:
        """The spans of one trace by their names; of several of a name, the last that came."""
        return {span.name: span for span in self.spans.copy() if span.trace == trace}

    def wait(self, *names: str) -> list[Told]:
        """All spans, once each of these names is among them, as often as it is said here."""

        def is_there() -> bool:
            told = [span.name for span in self.spans.copy()]
            return all(told.count(name) >= names.count(name) for name in names)

        until(is_there)
        return self.spans.copy()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._free.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)
