"""The whole of a trace on a real engine: vLLM is told where its generation stands, and its own span is below ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from inferbus_client import Client
from support.mosquitto import Mosquitto
from support.otlp import Collector
from support.waiting import until
from support.worker import WorkerProcess

pytestmark = pytest.mark.usefixtures("vllm_needed")

#: As vLLM names it.
_OF_VLLM: Final = "llm_request"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def client(vllm_needed: None, broker: Mosquitto, collector: Collector) -> Iterator[Client]:  # noqa: ARG001 - asked first
    """A client without spans of its own, before a worker and a vLLM that make some."""
    own = f"{collector.url}/v1/traces"
    variables = {**collector.environment, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}
    with (
        pytest.MonkeyPatch.context() as patch,
        Client(broker.url, project="traced-vllm", pacing=0) as client,
    ):
        for name, value in variables.items():
            patch.setenv(name, value)
        extra = ("--otlp-traces-endpoint", own)
        with WorkerProcess(broker, "demo", extra=extra, project="traced-vllm", rate_limit="off"):
            yield client


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_vllms_own_span_stands_below_the_engines(client: Client, collector: Collector, *, stream: bool) -> None:
    trace = ("5" if stream else "7") * 32
    headers = {"traceparent": f"00-{trace}-{'1' * 16}-01"}
    if stream:
        assert list(client.stream("Hello", trace_headers=headers))
    else:
        assert client.ask("Hello", trace_headers=headers).text
    until(lambda: {_OF_VLLM, "request"} <= collector.of(trace).keys())
    found = collector.of(trace)
    assert found["request"].parent == "1" * 16
    assert found[_OF_VLLM].parent == found["engine"].id
    assert found["engine"].parent == found["turn"].id
