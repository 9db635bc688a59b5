"""Tracing: off it costs nothing, on it is what OpenTelemetry's variables say, and a collector is nobody's worry."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from inferbus_client.contract.trace import TraceContext
from inferbus_client.contract.wire import Failure
from inferbus_client.tracing import names, spans
from inferbus_client.tracing.http import http_span
from inferbus_client.tracing.spans import Tracer, failure_of, process_tracer
from inferbus_worker.admission import addressing
from inferbus_worker.chat import Usage
from inferbus_worker.engines.base import BackendError, ChatCall, ContextTooLongError
from inferbus_worker.outcome import Answered
from inferbus_worker.tracing import RequestTrace
from support.otlp import Collector
from support.rooms import Chunk, Rooms, ScriptedEngine, answer
from support.waiting import PATIENCE

TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
INCOMING: Final = TraceContext(f"00-{TRACE}-00f067aa0ba902b7-01", "a=1")
OFF: Final[list[Mapping[str, str]]] = [
    {},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "TRUE"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "console"},
]
_A_WORKER: Final = """
from inferbus_worker.daemon import Daemon
from inferbus_worker.engines.factory import only
from inferbus_worker.engines.simulated import Behaviour, SimulatedEngine
from inferbus_worker.settings.worker import Settings
Daemon(Settings.load({'broker': 'mqtt://127.0.0.1:1'}), only(SimulatedEngine(Behaviour())))
"""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(spans, "_made", [])
    yield
    for tracer in spans._made:
        if tracer is not None:
            tracer.stop(PATIENCE)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as collector:
        for name, value in collector.environment.items():
            monkeypatch.setenv(name, value)
        yield collector


def tracer() -> Tracer:
    made = process_tracer("tests")
    assert made is not None
    return made


def configure(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


# --- off ---


@pytest.mark.parametrize("environment", OFF, ids=str)
def test_it_is_off_unless_a_collector_is_named_and_nobody_says_no(
    environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, **environment)
    assert process_tracer("tests") is None


@pytest.mark.parametrize(
    "statement",
    [
        "from inferbus_client import Client; Client('mqtt://127.0.0.1:1')",
        "import inferbus_client.tracing.http",
        _A_WORKER,
    ],
    ids=["a client", "the gateway's span", "a worker"],
)
def test_off_nothing_of_opentelemetry_is_loaded(statement: str) -> None:
    code = f"{statement}\nimport sys\nprint([name for name in sys.modules if name.startswith('opentelemetry')])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


def test_off_no_request_has_a_trace_that_brings_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[RequestTrace] = []

    class Noted(RequestTrace):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(addressing, "RequestTrace", Noted)
    rooms = Rooms()
    rooms.answer("s1")
    rooms.receive("general/user_input/s2", b'{"message": 7}')
    rooms.receive("general/user_input/s3", b"hello", user_properties=[("other", "property")])
    assert made == []
    rooms.receive("general/user_input/s4", b"hello", user_properties=INCOMING.pairs)
    assert len(made) == 1


def test_off_a_context_is_handed_on_without_a_span() -> None:
    trace = RequestTrace(None, INCOMING, "user_input", "general")
    trace.waits()
    with (
        trace.turn("slot", 1) as turn,
        turn.generation("model", temperature=0, top_p=1, max_tokens=1) as generating,
    ):
        assert generating.context == INCOMING
        generating.answered("stop", Usage(1, 1))
    trace.end(Answered("hello"))
    assert trace.told == INCOMING.pairs


# --- on ---


def test_it_is_named_by_who_asks_first_unless_the_variables_name_it(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert process_tracer("first") is process_tracer("second")
    tracer().begin(names.BUS, "client", None).end()
    assert [span.service for span in collector.wait(names.BUS)] == ["first"]
    tracer().stop(PATIENCE)
    spans._made.clear()
    configure(monkeypatch, OTEL_SERVICE_NAME="by the variables")
    tracer().begin(names.QUEUE, "internal", None).end()
    assert collector.wait(names.QUEUE)[-1].service == "by the variables"


def test_the_last_spans_leave_at_the_stop(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, OTEL_BSP_SCHEDULE_DELAY="600000")
    made = tracer()
    made.begin(names.BUS, "client", INCOMING, {names.PROJECT: "general", names.MODEL: None}).end("overloaded")
    assert made.stop(PATIENCE)
    (span,) = collector.spans
    assert (span.trace, span.parent) == (TRACE, INCOMING.traceparent.split("-")[2])
    assert span.failed
    assert span.attributes == {names.PROJECT: "general", names.FAILURE: "overloaded"}
    made.begin(names.BUS, "client", None).end()  # too late, and harmless


def test_a_program_that_ends_without_a_word_loses_no_span(collector: Collector) -> None:
    code = """
from inferbus_client.tracing.spans import process_tracer
process_tracer("short").begin("bus", "client", None).end()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert [span.service for span in collector.spans] == ["short"]


def test_who_is_not_sampled_is_no_span_and_hands_that_on(collector: Collector) -> None:
    unsampled = TraceContext(f"{INCOMING.traceparent[:-2]}00")
    made = tracer()
    with made.begin(names.BUS, "client", unsampled) as span:
        assert span.context.traceparent.startswith(f"00-{TRACE}-")
        assert span.context.traceparent.endswith("-00")
    made.stop(PATIENCE)
    assert collector.spans == []


def test_a_span_ends_once_and_with_what_is_raised(collector: Collector) -> None:
    made = tracer()
    with pytest.raises(ZeroDivisionError), made.begin(names.TURN, "internal", None) as span:
        raise ZeroDivisionError("the words of a requester")
    span.end("again")
    made.stop(PATIENCE)
    assert [(span.failed, span.attributes[names.FAILURE]) for span in collector.spans] == [(True, "ZeroDivisionError")]
    assert b"requester" not in collector.raw
    assert failure_of(GeneratorExit()) == "cancelled"


def test_what_nobody_configured_right_is_one_sentence_and_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    configure(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_BSP_MAX_QUEUE_SIZE="-1")
    assert process_tracer("tests") is None
    assert process_tracer("tests") is None
    (record,) = caplog.records
    assert "OTEL_" in record.getMessage()
    spans._made.clear()
    caplog.clear()
    configure(monkeypatch, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert process_tracer("tests") is None
    assert "http/protobuf" in caplog.text


@pytest.mark.parametrize(("service", "extra"), [("inferbus-worker", "worker"), ("inferbus-gateway", "client")])
def test_configured_and_not_installed_it_names_the_extra(service: str, extra: str, tmp_path: Path) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ImportError")
    code = f"from inferbus_client.tracing.spans import process_tracer; assert process_tracer({service!r}) is None"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path), "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert run.stderr.count("\n") == 1
    assert f"pip install 'inferbus-{extra}[otel]'" in run.stderr


def test_a_full_queue_and_a_collector_that_refuses_are_one_sentence_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "inferbus")
    with Collector("refuses") as refusing:
        configure(
            monkeypatch,
            **{**refusing.environment, "OTEL_BSP_MAX_QUEUE_SIZE": "2", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"},
        )
        made = tracer()
        for _ in range(100):
            made.begin(names.BUS, "client", None).end()
        made.stop(PATIENCE)
    assert [record.name for record in caplog.records if record.levelno >= logging.WARNING] == ["inferbus.tracing"]


def test_what_others_say_of_opentelemetry_is_not_ours_to_hush(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    assert collector.url
    tracer()
    logging.getLogger("opentelemetry.sdk._shared_internal").warning("of another provider")
    assert "of another provider" in caplog.text


# --- the worker's ---


def shape(collector: Collector) -> list[tuple[str, str, bool]]:
    """Every span's name, its parent's, and whether it failed, in the order of their beginnings."""
    by_id = {span.id: span for span in collector.spans}
    return [
        (span.name, by_id[span.parent].name if span.parent in by_id else "", span.failed)
        for span in sorted(collector.spans, key=lambda span: span.start)
    ]


def test_each_try_waits_anew_and_has_a_turn_of_its_own(collector: Collector) -> None:
    made = tracer()

    def gone(_call: ChatCall) -> Iterator[Chunk]:
        yield from ()
        raise BackendError("failed", "connection")

    engines = [ScriptedEngine(gone), ScriptedEngine(answer("fine"))]
    rooms = Rooms(models={"m": engines}, rate=None, tracer=made)
    rooms.receive("general/user_input/s1", b"hello")
    for _ in range(2):
        rooms.turns.run(rooms.take())
    made.stop(PATIENCE)
    assert shape(collector) == [
        ("request", "", False),
        ("queue", "request", False),
        ("turn", "request", True),
        ("engine", "turn", True),
        ("queue", "request", False),
        ("turn", "request", False),
        ("engine", "turn", False),
    ]
    turns = [span.attributes for span in collector.spans if span.name == "turn"]
    assert sorted(turn[names.ATTEMPT] for turn in turns) == [1, 2]
    assert len({turn[names.SLOT] for turn in turns}) == 2
    (engine,) = (span for span in collector.spans if span.name == "engine" and not span.failed)
    (call,) = engines[1].calls
    assert call.trace is not None
    assert call.trace.traceparent.startswith(f"00-{engine.trace}-{engine.id}-")


def test_a_history_that_is_cut_is_another_generation_in_the_same_turn(collector: Collector) -> None:
    made = tracer()
    rooms = Rooms(rate=None, tracer=made)
    rooms.answer("s1", "first")

    def short(call: ChatCall) -> Iterator[Chunk]:
        if len(call.messages) > 1:
            raise ContextTooLongError
        yield from answer("fine")(call)

    rooms.engine.script = short
    rooms.answer("s1", "second")
    made.stop(PATIENCE)
    generations = [span for span in collector.spans if span.name == "engine"][1:]
    assert [span.failed for span in generations] == [True, False]
    assert len({span.parent for span in generations}) == 1


@pytest.mark.parametrize("way", ["closed", "session busy", "invalid", "too large"])
def test_whatever_is_refused_is_one_span_with_the_failures_code(collector: Collector, way: str) -> None:
    made = tracer()
    rooms = Rooms(rate=None, tracer=made, max_message_bytes=2000)
    if way == "closed":
        rooms.gate = Failure("shutting_down")
    payloads = {"invalid": b'{"message": 7}', "too large": b"x" * 3000}
    said = rooms.receive("general/user_input/s1", payloads.get(way, b"hello"))
    if way == "session busy":
        said = rooms.receive("general/user_input/s1", b"hello")
    made.stop(PATIENCE)
    codes = {"closed": "shutting_down", "session busy": "session_busy", "too large": "message_too_large"}
    (refused,) = (span for span in collector.spans if span.name == "request")
    assert refused.failed
    assert refused.attributes[names.FAILURE] == codes.get(way, "invalid_request") == said[-1].status


# --- the gateway's ---


def test_an_http_request_hands_its_own_span_on(collector: Collector) -> None:
    made = tracer()
    headers = [("Traceparent", INCOMING.traceparent), ("tracestate", "a=1"), ("authorization", "Bearer private")]
    with http_span(made, "POST", "/v1/chat/completions", headers) as http:
        assert http.trace_headers is not None
        assert http.trace_headers["traceparent"] != INCOMING.traceparent
        http.answered(200)
    with http_span(made, "POST", "/v1/chat/completions", headers) as http:
        http.answered(429, Failure("rate_limited").code)
    with http_span(made, "GET", "/v1/models", []) as http:
        http.answered(404)
    made.stop(PATIENCE)
    well, refused, absent = collector.spans
    assert (well.trace, well.kind, well.failed) == (TRACE, 2, False)
    assert refused.failed
    assert (refused.attributes[names.FAILURE], refused.attributes[names.STATUS]) == ("rate_limited", 429)
    assert not absent.failed
    assert absent.parent == ""
    assert b"private" not in collector.raw


def test_without_a_tracer_what_came_over_http_is_handed_on_where_it_is_sound() -> None:
    with http_span(None, "POST", "/", INCOMING.headers.items()) as http:
        assert http.trace_headers == INCOMING.headers
        http.answered(500)
    with http_span(None, "POST", "/", [("traceparent", "nonsense")]) as http:
        assert http.trace_headers is None
