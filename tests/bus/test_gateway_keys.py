"""Who may come in at the gateway: whoever has a key, for its projects, within its limits."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import pytest

from support.gateway import GatewayProcess, question
from support.inferbus import inferbus
from support.mosquitto import HOST, Mosquitto
from support.needs import needs_module
from support.waiting import PATIENCE, until

StartWorker = Callable[..., Any]
#: An answer of several words never ends.
SLOW: Final = {"simulated_per_token": "10m", "drain_timeout": "0s"}
OPEN: Final = ("/healthz", "/readyz", "/")
OPERATORS: Final = ("/metrics", "/api/queue-status", "/api/health", "/api/live")


@pytest.fixture(autouse=True)
def _needed() -> None:
    needs_module("uvicorn")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


@pytest.fixture
def add(file: Path) -> Callable[..., str]:
    def add(name: str, *options: str) -> str:
        made = inferbus("keys", "add", name, "--file", str(file), *options)
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()

    return add


@pytest.fixture
def serve(own_broker: Mosquitto, start_worker: StartWorker) -> Callable[..., Any]:
    return lambda **options: start_worker(broker=own_broker, **{"rate_limit": "off", "project": ["a", "b"], **options})


@pytest.fixture
def gateway(own_broker: Mosquitto, file: Path, serve: Callable[..., Any], add: Any) -> Iterator[GatewayProcess]:
    serve()
    key = add("alice", "--project", "a")
    with GatewayProcess(own_broker, "--api-keys", str(file), key=key, waits_for=["a"]) as gateway:
        yield gateway


def test_without_a_key_nobody_sees_anything_of_the_bus(gateway: GatewayProcess) -> None:
    alices, gateway.key = gateway.key, None
    assert [gateway.get(path).status for path in OPEN] == [200] * len(OPEN)
    wrong: list[dict[str, Any]] = [
        {},
        {"authorization": "Bearer ib-" + "0" * 48},
        {"authorization": f"Basic {alices}"},
        {"x_api_key": "x"},
    ]
    for headers in wrong:
        for path in ("/v1/models", *OPERATORS):
            refused = gateway.get(path, **headers)
            assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer"), path
        refused = gateway.post("/v1/chat/completions", question("hello", model="a"), **headers)
        assert (refused.status, refused.json["error"]["code"]) == (401, "invalid_api_key")
    assert gateway.get("/v1/models", x_api_key=str(alices)).status == 200


def test_a_key_that_is_not_known_is_told_from_none(gateway: GatewayProcess) -> None:
    gateway.key = None
    shown: list[dict[str, Any]] = [{}, {"authorization": "Bearer ib-" + "0" * 48}, {"x_api_key": "x"}]
    assert [gateway.get("/v1/models", **headers).json["error"]["message"] for headers in shown] == [
        "An API key is needed: Authorization: Bearer KEY.",
        "This API key is not known here.",
        "This API key is not known here.",
    ]


def test_a_key_has_its_projects_alone(gateway: GatewayProcess) -> None:
    assert gateway.models() == ["a", "a/simulated"]
    assert gateway.ask(model="a").status == 200
    for model in ("b", "b/simulated", "c"):
        refused = gateway.ask(model=model)
        assert (refused.status, refused.json["error"]["code"]) == (404, "model_not_found")
    assert [gateway.get(path).status for path in OPERATORS] == [403] * len(OPERATORS)


def test_an_operator_sees_the_whole_bus(gateway: GatewayProcess, add: Any) -> None:
    gateway.key = add("ops", "--operator")
    until(lambda: gateway.get("/v1/models").status == 200)
    assert gateway.models() == ["a", "a/simulated", "b", "b/simulated"]
    assert [gateway.get(path).status for path in OPERATORS[:-1]] == [200] * 3
    assert gateway.get("/api/queue-status").json == {"activeRequests": 0, "queuedRequests": 0, "maxConcurrent": 256}


def test_one_that_is_taken_away_holds_no_more(gateway: GatewayProcess, file: Path) -> None:
    assert inferbus("keys", "remove", "alice", "--file", str(file)).returncode == 0
    until(lambda: gateway.get("/v1/models").status == 401)


def test_nor_does_it_go_on_to_see_the_bus(gateway: GatewayProcess, add: Any, file: Path) -> None:
    gateway.key = add("ops", "--operator")
    until(lambda: gateway.get("/v1/models").status == 200)
    with closing(HTTPConnection(HOST, gateway.port, timeout=PATIENCE)) as connection:
        connection.request("GET", "/api/live", headers={"authorization": f"Bearer {gateway.key}"})
        live = connection.getresponse()
        assert live.readline().startswith(b"event: ")
        assert inferbus("keys", "remove", "ops", "--file", str(file)).returncode == 0
        assert live.read() is not None


def test_a_file_that_is_broken_changes_nothing_and_is_complained_of(gateway: GatewayProcess, file: Path) -> None:
    file.write_text("keys: [")
    until(lambda: gateway.get("/v1/models").status == 200 and "keys.yaml" in gateway.log)
    assert gateway.get("/v1/models").status == 200


def test_keys_show_nowhere(gateway: GatewayProcess, file: Path) -> None:
    key = str(gateway.key)
    gateway.ask(model="a")
    gateway.get(f"/v1/models/{key}")
    file.write_text(f"keys: {{alice: {key}}}")
    until(lambda: gateway.get("/v1/models").status == 200 and "keys.yaml" in gateway.log)
    assert key not in gateway.log
    assert key.removeprefix("ib-") not in gateway.log


def test_a_key_s_limits_are_its_own(gateway: GatewayProcess, add: Any) -> None:
    gateway.key = add("hasty", "--rate-limit", "2/10m")
    until(lambda: gateway.get("/v1/models").status == 200)
    assert [gateway.ask(model="a").status for _ in range(2)] == [200, 200]
    refused = gateway.ask(model="a")
    assert (refused.status, refused.headers["x-inferbus-reason"]) == (429, "rate_limited")
    assert 500 < int(refused.headers["retry-after"]) <= 600
    gateway.key = add("patient")
    until(lambda: gateway.get("/v1/models").status == 200)
    assert gateway.ask(model="a").status == 200


def test_so_is_how_many_it_has_under_way(
    own_broker: Mosquitto, file: Path, serve: Callable[..., Any], add: Any
) -> None:
    serve(**SLOW)
    key = add("one", "--max-concurrent", "1")
    with GatewayProcess(own_broker, "--api-keys", str(file), key=key, waits_for=["a"]) as gateway:
        with gateway.stream(model="a") as stream:
            assert next(stream.texts())
            assert gateway.ask(model="a").status == 429

        def is_let_in() -> bool:
            with gateway.stream(model="a") as stream:
                return stream.status == 200

        until(is_let_in)


def test_a_worker_s_limit_per_client_counts_each_key_apart(
    own_broker: Mosquitto, file: Path, serve: Callable[..., Any], add: Any
) -> None:
    serve(client_rate_limit="1/10m")
    keys = [add(name) for name in ("alice", "bob")]
    with GatewayProcess(own_broker, "--api-keys", str(file), key=keys[0], waits_for=["a"]) as gateway:
        assert [gateway.ask(model="a").status for _ in range(2)] == [200, 429]
        gateway.key = keys[1]
        assert [gateway.ask(model="a").status for _ in range(2)] == [200, 429]


def test_it_listens_to_others_only_with_keys() -> None:
    refused = inferbus("gateway", "--listen", "0.0.0.0:8080")
    assert refused.returncode == 2
    assert "--api-keys" in refused.stderr


class TestStrangersBytes:
    def test_heads_and_bodies_without_an_end_are_cut_off(self, gateway: GatewayProcess) -> None:
        for bomb in (
            b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 100_000,
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 100,
            b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
            b"POST /v1/messages HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
        ):
            with socket.create_connection((HOST, gateway.port), PATIENCE) as peer:
                said = b""
                try:
                    peer.sendall(bomb)
                    said = peer.recv(100)
                except ConnectionError:
                    pass
                assert not said or said.startswith(b"HTTP/1.1 4"), said
        assert gateway.get("/healthz").status == 200

    def test_a_body_that_is_longer_than_it_may_be_is_not_read_to_its_end(self, gateway: GatewayProcess) -> None:
        with closing(HTTPConnection(HOST, gateway.port, timeout=PATIENCE)) as connection:
            headers = {"content-type": "application/json", "authorization": f"Bearer {gateway.key}"}
            body = (b"[" * 65_536 for _ in range(10_000))
            try:
                connection.request("POST", "/v1/chat/completions", body, headers, encode_chunked=True)
            except ConnectionError:
                pass
            else:
                raise AssertionError("it has read all of it")
        assert gateway.ask(model="a").status == 200

    def test_paths_lead_nowhere_else(self, gateway: GatewayProcess) -> None:
        for path in (
            "/../../etc/passwd",
            "/page/../../../etc/passwd",
            "/page/%2e%2e/%2e%2e/app.py",
            "//etc/passwd",
            "/page/",
        ):
            assert gateway.get(path).status == 404, path

    def test_any_json_gets_an_answer_that_is_one(self, gateway: GatewayProcess) -> None:
        values: list[Any] = [None, True, 1, -1.5, "x", "", [], {}, [[]], {"a": 1}, "\0", "é" * 1000]
        names = (
            "messages",
            "model",
            "stream",
            "stream_options",
            "tools",
            "tool_choice",
            "stop",
            "response_format",
            "seed",
        )
        for path in ("/v1/chat/completions", "/v1/messages"):
            for name in names:
                for value in values:
                    body = {**question("hello", model="a", max_tokens=5), name: value}
                    answer = gateway.get(path, "POST", body=json.dumps(body).encode(), content_type="application/json")
                    assert answer.status in {200, 400, 404}, (path, name, value, answer.text)
        assert "Traceback" not in gateway.log
