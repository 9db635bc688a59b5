"""One trace over client, bus and worker: spans where OTLP is configured, a context handed on where it is not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from inferbus_client import Client, RequestFailedError, Stream
from inferbus_client.tracing import spans
from support.gateway import GatewayProcess, question
from support.listener import Heard, Listener
from support.mosquitto import Mosquitto
from support.needs import needs_module
from support.otlp import Collector, Mood, Told
from support.waiting import PATIENCE, until
from support.worker import WorkerProcess

TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT: Final = f"00-{TRACE}-00f067aa0ba902b7-01"
PRIVATE: Final = "the words that nobody traces"
#: Every word after the first takes so long.
QUICKLY: Final[dict[str, Any]] = {"simulated_per_token": "2ms"}
FOR_EVER: Final[dict[str, Any]] = {"simulated_per_token": "10m"}

Traced = Callable[..., tuple[Collector, WorkerProcess]]


@pytest.fixture
def traced(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    """A collector, and a worker and this process that are configured for it."""
    monkeypatch.setattr(spans, "_made", [])
    with ExitStack() as running:

        def start(mood: Mood = "takes", **options: Any) -> tuple[Collector, WorkerProcess]:
            collector = running.enter_context(Collector(mood))
            for name, value in collector.environment.items():
                monkeypatch.setenv(name, value)
            options = {"project": "traced", "rate_limit": "off", **options}
            return collector, running.enter_context(WorkerProcess(broker, **options))

        yield start
        for tracer in spans._made:
            assert tracer is None or tracer.stop(PATIENCE)


def client(broker: Mosquitto, **options: Any) -> Client:
    return Client(broker.url, project="traced", pacing=0, **options)


def properties(*user: tuple[str, str]) -> Properties:
    packed = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    packed.UserProperty = list(user)
    return packed


def asked(broker: Mosquitto, project: str, session: str, *user: tuple[str, str], **fields: Any) -> list[Heard]:
    """All replies to a request that brings user properties along."""
    body = json.dumps({"message": "hello there", "reply": "json", "stream": True, **fields})
    with Listener(broker, f"{project}/assistant_response/{session}") as listener:
        listener.publish(f"{project}/user_input/{session}", body, properties=properties(*user))
        until(lambda: any(json.loads(reply.text)["type"] in {"done", "error"} for reply in listener.heard))
        return listener.heard.copy()


def told(reply: Heard) -> dict[str, str]:
    named: dict[str, str] = dict(reply.properties.get("UserProperty", []))
    return {name: value for name, value in named.items() if name.startswith("trace")}


def _read_to_its_error(stream: Stream) -> None:
    with pytest.raises(RequestFailedError):
        list(stream)


def inside(inner: Told, outer: Told) -> bool:
    return inner.trace == outer.trace and inner.parent == outer.id and outer.start <= inner.start


def test_a_request_is_one_trace_from_the_client_into_the_engine(broker: Mosquitto, traced: Traced) -> None:
    collector, _ = traced(**QUICKLY)
    with client(broker) as asking:
        assert asking.ask(PRIVATE, session="session-of-mine", max_tokens=3, temperature=0).text
    collector.wait("bus", "request", "queue", "turn", "engine")
    bus, request, queue, turn, engine = (
        next(span for span in collector.spans if span.name == name)
        for name in ("bus", "request", "queue", "turn", "engine")
    )
    assert [span.service for span in (bus, request)] == ["inferbus-client", "inferbus-worker"]
    assert bus.parent == ""
    assert inside(request, bus)
    assert inside(queue, request)
    assert inside(turn, request)
    assert inside(engine, turn)
    assert queue.end <= turn.start
    assert engine.end <= turn.end <= request.end
    assert not any(span.failed for span in collector.spans)
    assert bus.attributes["gen_ai.usage.output_tokens"] == 3
    assert engine.attributes["gen_ai.request.max_tokens"] == 3
    assert engine.attributes["gen_ai.response.finish_reasons"] == request.attributes["gen_ai.response.finish_reasons"]
    assert (request.attributes["inferbus.project"], turn.attributes["inferbus.attempt"]) == ("traced", 1)
    for secret in (PRIVATE, PRIVATE.split()[0], "session-of-mine", asking.client_id):
        assert secret.encode() not in collector.raw


def test_the_calling_programs_own_span_is_the_parent_unless_headers_say_otherwise(
    broker: Mosquitto, traced: Traced
) -> None:
    from opentelemetry import trace  # noqa: PLC0415 - as a program would that has it

    collector, _ = traced()
    own = trace.SpanContext(int(TRACE, 16), 0xA1, is_remote=False, trace_flags=trace.TraceFlags(1))
    with client(broker) as asking, trace.use_span(trace.NonRecordingSpan(own)):
        asking.ask("hello")
        asking.ask("hello", trace_headers={"traceparent": f"00-{'7' * 32}-{'8' * 16}-01"})
    collector.wait("bus", "bus", "request", "request")
    assert collector.of(TRACE)["bus"].parent == f"{0xA1:016x}"
    assert collector.of("7" * 32)["bus"].parent == "8" * 16
    assert inside(collector.of("7" * 32)["request"], collector.of("7" * 32)["bus"])


def test_a_refusal_is_one_span_with_its_code(broker: Mosquitto, traced: Traced) -> None:
    collector, _ = traced()
    with client(broker, retries=0) as asking, pytest.raises(RequestFailedError) as refused:
        asking.ask("hello", model="no-such-model", trace_headers={"traceparent": PARENT})
    collector.wait("bus", "request")
    found = collector.of(TRACE)
    assert set(found) == {"bus", "request"}
    assert all(span.failed for span in found.values())
    assert {span.attributes["error.type"] for span in found.values()} == {refused.value.code}


def test_what_is_cancelled_in_the_queue_or_in_the_engine_ends_its_spans(broker: Mosquitto, traced: Traced) -> None:
    collector, _ = traced(workers=1, drain_timeout="0s", **FOR_EVER)
    with client(broker) as asking:
        runs = asking.stream("two words", session="runs", trace_headers={"traceparent": PARENT})
        next(iter(runs))
        waiting = threading.Event()
        stream = asking.stream(
            "two words",
            session="waits",
            trace_headers={"traceparent": f"00-{'5' * 32}-{'6' * 16}-01"},
            on_accepted=lambda _: waiting.set(),
        )
        reader = threading.Thread(target=lambda: _read_to_its_error(stream))
        reader.start()
        assert waiting.wait(PATIENCE)
        stream.cancel()
        reader.join(PATIENCE)
        runs.close()
        collector.wait("bus", "bus", "request", "request", "queue", "queue", "turn", "engine")
    queued, ran = collector.of("5" * 32), collector.of(TRACE)
    assert set(queued) == {"bus", "request", "queue"}
    assert queued["queue"].attributes["error.type"] == "cancelled"
    assert set(ran) == {"bus", "request", "queue", "turn", "engine"}
    assert [ran[name].failed for name in ("bus", "request", "queue", "turn", "engine")] == [
        True,
        True,
        False,
        True,
        True,
    ]


def test_a_worker_that_makes_spans_tells_of_its_own_where_the_request_brought_a_trace(
    broker: Mosquitto, traced: Traced
) -> None:
    collector, _ = traced()
    replies = asked(broker, "traced", "follows", ("traceparent", PARENT), ("tracestate", "a=1"))
    collector.wait("request")
    request = collector.of(TRACE)["request"]
    own = {"traceparent": f"00-{TRACE}-{request.id}-01", "tracestate": "a=1"}
    assert [told(reply) for reply in replies] == [own] * len(replies)
    assert [told(reply) for reply in asked(broker, "traced", "alone")] == [{}] * len(replies)


def test_without_tracing_the_worker_says_a_requests_trace_in_its_replies_in_json(broker: Mosquitto) -> None:
    with WorkerProcess(broker, project="untraced", rate_limit="off"):
        came = {"traceparent": PARENT, "tracestate": "a=1"}
        replies = asked(broker, "untraced", "s1", *came.items())
        assert [json.loads(reply.text)["type"] for reply in replies] == ["accepted", "delta", "done"]
        assert [told(reply) for reply in replies] == [came] * 3
        refused = asked(broker, "untraced", "s2", *came.items(), temperature=9)
        assert [told(reply) for reply in refused] == [came]
        assert [told(reply) for reply in asked(broker, "untraced", "s3")] == [{}] * 3
        with Listener(broker, "untraced/assistant_response/s4") as listener:
            listener.publish("untraced/user_input/s4", "hello", properties=properties(*came.items()))
            assert told(listener.wait(1)[0]) == {}


@pytest.mark.parametrize(
    "user",
    [
        [("traceparent", "00-nonsense")],
        [("traceparent", PARENT.upper())],
        [("traceparent", PARENT), ("traceparent", PARENT)],
        [("traceparent", f"ff{PARENT[2:]}")],
        [("traceparent", "x" * 60_000)],
        [("tracestate", "a=1")],
        [("traceparent", f"00-{'0' * 32}-00f067aa0ba902b7-01")],
    ],
    ids=lambda user: str(user)[:60],
)
def test_a_strangers_trace_that_is_none_is_ignored(
    broker: Mosquitto, plain_worker: WorkerProcess, user: list[tuple[str, str]]
) -> None:
    replies = asked(broker, "strangers", "s1", *user)
    assert json.loads(replies[-1].text)["type"] == "done"
    assert [told(reply) for reply in replies] == [{}] * len(replies)
    assert '"level": "warning"' not in plain_worker.log


@pytest.fixture(scope="module")
def plain_worker(broker: Mosquitto) -> Iterator[WorkerProcess]:
    with WorkerProcess(broker, project="strangers", rate_limit="off") as worker:
        yield worker


@pytest.mark.parametrize("mood", ["hangs", "refuses"])
def test_a_dead_collector_delays_no_answer_and_no_stop_and_is_said_once(
    broker: Mosquitto, traced: Traced, mood: Mood
) -> None:
    collector, worker = traced(mood, drain_timeout="5s")
    with client(broker) as asking:
        for number in range(40):
            assert asking.ask(f"number {number}", session=f"s{number}", timeout=10).text == f"number {number}"
    until(lambda: collector.asked > 0)
    assert worker.stop(timeout=7) == 0
    complaints = [line for line in worker.log.splitlines() if "collector of traces" in line]
    assert 1 <= len(complaints) <= 2
    assert worker.log.count("opentelemetry") == 0
    made = spans._made[0]
    assert made is not None
    if mood == "hangs":
        assert not made.stop(0.1)
    collector._free.set()


def test_the_gateway_s_span_stands_around_them_and_below_whoever_asks(broker: Mosquitto, traced: Traced) -> None:
    needs_module("uvicorn")
    collector, _ = traced(**QUICKLY, project_rate_limit="1/10m")
    with GatewayProcess(broker, waits_for=["traced"]) as gateway:
        asked = question(PRIVATE, model="traced")
        assert gateway.post("/v1/chat/completions", asked, traceparent=PARENT).status == 200
        collector.wait("http", "bus", "request", "engine")
        http, bus, request = (
            next(span for span in collector.spans if span.name == name) for name in ("http", "bus", "request")
        )
        assert (http.trace, http.parent) == (TRACE, "00f067aa0ba902b7")
        assert (bus.parent, request.parent) == (http.id, bus.id)
        assert gateway.post("/v1/chat/completions", asked).status == 429
    failed = [None, "rate_limited"]
    until(lambda: [span.attributes.get("error.type") for span in collector.spans if span.name == "http"] == failed)
    assert all(PRIVATE not in str(span) for span in collector.spans)
