"""Health, metrics and figures of a real worker, over HTTP."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inferbus_client import Client
from support.inferbus import inferbus
from support.listener import Listener
from support.mosquitto import HOST, Mosquitto, free_port
from support.needs import needs_module
from support.waiting import PATIENCE, until

StartWorker = Callable[..., Any]
#: An answer of several words never ends.
SLOW: Final = {"simulated_per_token": "10m"}
TOKEN: Final = "not-a-secret-of-anybody"  # noqa: S105


@pytest.fixture(autouse=True)
def _needed() -> None:
    needs_module("uvicorn")


@pytest.fixture
def port() -> int:
    return free_port()


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    with closing(http.client.HTTPConnection(HOST, port, timeout=PATIENCE)) as connection:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()


def ready(port: int) -> tuple[int, Any]:
    status, text = get(port, "/readyz")
    return status, json.loads(text)


def metrics(port: int) -> Mapping[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample, by its name and labels."""
    status, text = get(port, "/metrics")
    assert status == 200
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_it_says_that_it_lives_and_answers(own_broker: Mosquitto, start_worker: StartWorker, port: int) -> None:
    start_worker(broker=own_broker, http=port, rate_limit="off")
    assert get(port, "/healthz") == (200, '{"status":"ok"}')
    assert ready(port) == (200, {"ready": True, "missing": []})
    assert json.loads(get(port, "/api/health")[1])["models"] == {"simulated": "ready"}
    assert [get(port, path)[0] for path in ("/", "/metrics/", "/../etc/passwd", "/api/stats/../../x")] == [404] * 4
    assert get(port, "/healthz", "POST")[0] == 405


def test_without_a_broker_it_lives_and_does_not_answer(
    own_broker: Mosquitto, start_worker: StartWorker, port: int
) -> None:
    start_worker(broker=own_broker, http=port)
    own_broker.kill()
    until(lambda: ready(port)[0] == 503)
    assert ready(port)[1] == {"ready": False, "missing": ["no connection to the broker"]}
    assert get(port, "/healthz")[0] == 200
    assert metrics(port)["inferbus_ready", ()] == 0
    own_broker.start()
    until(lambda: ready(port)[0] == 200)


def test_while_it_drains_it_says_so(own_broker: Mosquitto, start_worker: StartWorker, port: int) -> None:
    worker = start_worker(broker=own_broker, http=port, **SLOW, drain_timeout="10m")
    with Listener(own_broker, "general/assistant_response/+") as listener:
        listener.publish("general/user_input/s", json.dumps({"message": "hello there", "stream": True}))
        listener.wait(1)
    worker.process.terminate()
    until(lambda: ready(port)[0] == 503)
    assert ready(port)[1]["missing"] == ["draining"]
    assert json.loads(get(port, "/api/health")[1])["status"] == "unhealthy"
    worker.process.terminate()  # the second signal ends it at once
    worker.process.wait(PATIENCE)


def test_the_queue_is_told_as_it_is(own_broker: Mosquitto, start_worker: StartWorker, port: int) -> None:
    start_worker(
        broker=own_broker,
        http=port,
        rate_limit="off",
        **SLOW,
        simulated_capacity=3,
        drain_timeout="0s",
    )
    with Listener(own_broker, "general/assistant_response/+") as listener:
        for number in range(10):
            listener.publish(f"general/user_input/s{number}", "hello there")
        told = {"activeRequests": 3, "queuedRequests": 7, "maxConcurrent": 3}
        until(lambda: json.loads(get(port, "/api/queue-status")[1]) == told)
    found = metrics(port)
    assert [found[f"inferbus_requests_{what}", ()] for what in ("running", "waiting")] == [3, 7]
    assert found["inferbus_model_requests_waiting", (("model", "simulated"),)] == 7
    assert json.loads(get(port, "/api/stats")[1])["queued"] == 7


def test_what_clients_say_becomes_no_label(own_broker: Mosquitto, start_worker: StartWorker, port: int) -> None:
    start_worker(broker=own_broker, http=port, rate_limit="off")
    before = metrics(port).keys()
    with Client(own_broker.url, pacing=0) as client:
        client.listen_to_every_session()
        for number in range(300):
            client.ask("hello", session=f"session-{number}", request_id=f"request-{number}")
    found = metrics(port)
    assert found.keys() == before
    assert found["inferbus_requests_total", ()] == 300
    assert found["inferbus_request_duration_seconds_count", ()] == 300
    assert found["inferbus_request_duration_seconds_bucket", (("le", "+Inf"),)] == 300


def test_a_refusal_is_counted_by_its_code(own_broker: Mosquitto, start_worker: StartWorker, port: int) -> None:
    start_worker(broker=own_broker, http=port, rate_limit="1/60s")
    with Listener(own_broker, "general/assistant_response/+") as listener:
        for number in range(3):
            listener.publish("general/user_input/s", "hello")
            listener.wait(number + 1)
    assert metrics(port)["inferbus_admission_rejections_total", (("code", "rate_limited"),)] == 2


class TestToken:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "token"
        file.write_text(f"{TOKEN}\n")
        return file

    def test_all_but_the_health_paths_ask_for_it(
        self, own_broker: Mosquitto, start_worker: StartWorker, port: int, file: Path
    ) -> None:
        start_worker(broker=own_broker, http=port, http_token_file=file)
        guarded = ("/metrics", "/api/queue-status", "/api/health", "/api/stats")
        assert [get(port, path)[0] for path in ("/healthz", "/readyz")] == [200, 200]
        assert [get(port, path)[0] for path in guarded] == [401] * 4
        assert [get(port, path, Authorization=f"Bearer {TOKEN}")[0] for path in guarded] == [200] * 4
        for wrong in (f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer", "Bearer \xff"):
            assert get(port, "/metrics", Authorization=wrong)[0] == 401

    @pytest.mark.parametrize("text", ["", "short", "two\nlines that are long enough"])
    def test_a_file_that_holds_none_is_refused(self, own_broker: Mosquitto, file: Path, port: int, text: str) -> None:
        file.write_text(text)
        run = inferbus(*serve(own_broker), "--http", str(port), "--http-token-file", str(file))
        assert run.returncode == 2
        assert "must hold one line" in run.stderr
        assert "long enough" not in run.stderr


def serve(broker: Mosquitto) -> list[str]:
    return ["serve", "--engine", "simulated", "--broker", broker.url]


def test_a_port_that_is_taken_is_said_and_nothing_is_served(own_broker: Mosquitto) -> None:
    run = inferbus(*serve(own_broker), "--http", str(own_broker.port))
    assert run.returncode == 2
    assert f"cannot listen for HTTP at 127.0.0.1:{own_broker.port}: Address already in use" in run.stderr
    assert "Traceback" not in run.stderr
    run = inferbus(*serve(own_broker), "--http", "nowhere", "--http-token-file", "x")
    assert "must be HOST:PORT" in run.stderr
