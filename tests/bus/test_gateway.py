"""OpenAI-shaped HTTP in front of real workers: answers, streams, refusals, and who goes in the middle."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


@pytest.fixture(autouse=True)
def _needed() -> None:
    needs_module("uvicorn")


@pytest.fixture
def worker(own_broker: Mosquitto, start_worker: StartWorker) -> Any:
    return start_worker(broker=own_broker, rate_limit="off")


@pytest.fixture
def gateway(own_broker: Mosquitto, worker: Any) -> Iterator[GatewayProcess]:  # noqa: ARG001 - which serves
    with GatewayProcess(own_broker) as gateway:
        yield gateway


@pytest.fixture
def slow(own_broker: Mosquitto, start_worker: StartWorker) -> Any:
    return start_worker(broker=own_broker, rate_limit="off", **SLOW)


def running(gateway: GatewayProcess) -> int:
    return int(gateway.get("/api/queue-status").json["activeRequests"])


class TestAnAnswer:
    def test_comes_whole_in_openais_shape(self, gateway: GatewayProcess) -> None:
        answer = gateway.ask("hello there")
        assert answer.status == 200
        body = answer.json
        assert body["id"] == f"chatcmpl-{answer.headers['x-request-id']}"
        assert (body["object"], body["model"]) == ("chat.completion", "general")
        assert body["choices"] == [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hello there", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ]
        assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 2

    def test_or_as_it_is_generated(self, gateway: GatewayProcess) -> None:
        with gateway.stream("one two three", stream_options={"include_usage": True}) as stream:
            assert (stream.status, stream.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
            assert stream.headers["x-inferbus-queue-position"] == "0"
            *pieces, last, usage = stream.events()
        assert pieces[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(piece["choices"][0]["delta"]["content"] for piece in pieces) == "one two three"
        assert last["choices"][0]["finish_reason"] == "stop"
        assert usage["choices"] == []
        assert usage["usage"]["completion_tokens"] == 3
        assert {piece["usage"] for piece in [*pieces, last]} == {None}

    def test_ends_with_the_word_that_it_is_done(self, gateway: GatewayProcess) -> None:
        with gateway.stream() as stream:
            assert list(stream.lines())[-1] == "data: [DONE]"

    def test_is_counted_and_no_gauge_says_since_when(self, gateway: GatewayProcess) -> None:
        gateway.ask()
        figures = gateway.get("/metrics").text
        assert 'requests_total{path="/v1/chat/completions",status="200"} 1.0' in figures
        assert "_created" not in figures

    def test_keeps_to_what_was_asked_for(self, gateway: GatewayProcess) -> None:
        assert gateway.ask("one two three", max_tokens=2).json["choices"][0]["finish_reason"] == "length"
        assert gateway.ask("one two three", max_completion_tokens=2).json["usage"]["completion_tokens"] == 2

    def test_is_to_the_whole_conversation_and_none_is_remembered(self, gateway: GatewayProcess) -> None:
        messages = [
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two", "refusal": None, "tool_calls": []},
            {"role": "user", "content": "three"},
        ]
        first = gateway.post("/v1/chat/completions", {"model": "general", "messages": messages}).json["usage"]
        second = gateway.post("/v1/chat/completions", {"model": "general", "messages": messages}).json["usage"]
        assert first == second

    def test_of_a_long_conversation(self, gateway: GatewayProcess) -> None:
        said = {"role": "user", "content": "word " * 100}
        body = {"model": "general", "messages": [said] * 400, "max_tokens": 1}
        answer = gateway.post("/v1/chat/completions", body)
        assert answer.status in {200, 400}, answer.text
        assert answer.status == 200 or answer.json["error"]["code"] == "context_too_long"

    def test_with_tools_is_a_call_and_goes_on_with_its_result(
        self, own_broker: Mosquitto, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        config = tmp_path / "worker.yaml"
        config.write_text("projects:\n  general:\n    tools: true\n")
        start_worker(broker=own_broker, rate_limit="off", config=config)
        tool = {
            "type": "function",
            "function": {
                "name": "add",
                "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            },
        }
        with GatewayProcess(own_broker) as gateway:
            asked = question("add", tools=[tool], tool_choice="required")
            said = gateway.post("/v1/chat/completions", asked).json["choices"][0]
            assert said["finish_reason"] == "tool_calls"
            (call,) = said["message"]["tool_calls"]
            assert call["function"]["name"] == "add"
            result = {"role": "tool", "tool_call_id": call["id"], "content": "3"}
            messages = [*asked["messages"], said["message"], result]
            again = gateway.post("/v1/chat/completions", {"model": "general", "messages": messages, "tools": [tool]})
            assert again.status == 200, again.text
            with gateway.stream("add", tools=[tool], tool_choice="required") as stream:
                deltas = [choice["delta"] for event in stream.events() for choice in event["choices"]]
        calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
        assert calls[0]["function"]["name"] == "add"
        arguments = "".join(call["function"].get("arguments", "") for call in calls)
        assert isinstance(json.loads(arguments), dict)


class TestModels:
    def test_are_the_projects_and_what_they_may_name(
        self, own_broker: Mosquitto, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        config = tmp_path / "worker.yaml"
        models = {name: {"engine": "simulated"} for name in ("small", "large")}
        projects = {"lab": {"model": "small", "models": ["large"]}, "shop": {"model": "large"}}
        config.write_text(json.dumps({"models": models, "projects": projects}))
        start_worker(broker=own_broker, config=config, rate_limit="off")
        with GatewayProcess(own_broker, waits_for=["lab", "shop"]) as gateway:
            assert gateway.models() == ["lab", "lab/small", "lab/large", "shop", "shop/large"]
            assert gateway.get("/v1/models/lab/large").json["object"] == "model"
            assert gateway.get("/v1/models/shop/small").status == 404
            assert gateway.ask(model="lab/large").status == 200
            missing = gateway.ask(model="shop/small")
            assert (missing.status, missing.json["error"]["code"]) == (404, "model_not_found")

    def test_one_who_errs_hears_where_they_stand(self, gateway: GatewayProcess) -> None:
        message = gateway.ask(model="gpt-4o").json["error"]["message"]
        assert message == "model: there is no 'gpt-4o' here; GET /v1/models lists what there is."

    @pytest.mark.parametrize("path", ["/chat/completions", "/v1/v1/messages", "/v1/responses"])
    def test_so_does_one_whose_base_url_is_wrong(self, gateway: GatewayProcess, path: str) -> None:
        refused = gateway.post(path, {})
        assert (refused.status, refused.json["error"]["code"]) == (404, "not_found")
        there_are = "there is no such path; requests go to POST /v1/chat/completions or /v1/messages."
        assert refused.json["error"]["message"] == f"POST {path}: {there_are}"

    def test_that_nobody_serves_are_not_found(self, gateway: GatewayProcess) -> None:
        for model in (
            "gpt-4o",
            "general/x",
            "general/",
            "../general",
            "general/../../x",
            "a" * 10_000,
            "gen\u0000eral",
        ):
            refused = gateway.ask(model=model)
            assert (refused.status, refused.json["error"]["param"]) == (404, "model")
        assert gateway.ask(model=7).status == 400


class TestWhatCannotBeDone:
    @pytest.mark.parametrize(
        ("more", "param"),
        [
            ({"n": 2}, "n"),
            ({"logprobs": True}, "logprobs"),
            ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
            ({"modalities": ["text", "audio"]}, "modalities"),
            ({"temperature": 9}, "temperature"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"stream": "yes"}, "stream"),
            ({"stream_options": {"include_usage": True}}, "stream_options"),
            ({"messages": []}, "messages"),
            ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages.0.content.0"),
        ],
    )
    def test_is_refused_by_its_name(self, gateway: GatewayProcess, more: dict[str, Any], param: str) -> None:
        refused = gateway.ask(**more)
        assert (refused.status, refused.json["error"]["param"]) == (400, param), refused.text
        assert refused.json["error"]["type"] == "invalid_request_error"
        assert refused.headers["x-inferbus-reason"] == refused.json["error"]["code"] == "invalid_request"
        assert refused.headers["x-should-retry"] == "false"
        assert "retry-after" not in refused.headers

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"[]", b"null", b"\xff", b'{"messages": NaN}', b"[" * 100_000, b'"\\ud800"']
    )
    def test_is_refused_where_it_is_no_object(self, gateway: GatewayProcess, body: bytes) -> None:
        refused = gateway.get("/v1/chat/completions", "POST", body=body, content_type="application/json")
        assert (refused.status, refused.json["error"]["code"]) == (400, "invalid_request")

    def test_or_no_json(self, gateway: GatewayProcess) -> None:
        body = json.dumps(question("hello")).encode()
        assert gateway.get("/v1/chat/completions", "POST", body=body, content_type="text/plain").status == 415
        assert gateway.get("/v1/chat/completions").status == 405
        assert gateway.get("/v1/nothing").json["error"]["code"] == "not_found"
        assert gateway.post("/v1/messages/count_tokens", {}).json["error"]["type"] == "not_found_error"

    def test_or_too_large(self, own_broker: Mosquitto, worker: Any) -> None:  # noqa: ARG002 - which serves
        with GatewayProcess(own_broker, "--max-body-bytes", "64KiB") as gateway:
            refused = gateway.ask("x" * 70_000)
            assert (refused.status, refused.json["error"]["code"]) == (413, "message_too_large")
            assert gateway.ask("x" * 60_000, max_tokens=1).status in {200, 400}


class TestARefusal:
    def test_says_when_to_ask_again(self, own_broker: Mosquitto, start_worker: StartWorker) -> None:
        start_worker(broker=own_broker, project_rate_limit="1/10m")
        with GatewayProcess(own_broker) as gateway:
            assert gateway.ask("a secret").status == 200
            for refused in (gateway.ask(), gateway.ask(stream=True)):
                assert (refused.status, refused.json["error"]["type"]) == (429, "rate_limit_error")
                assert refused.headers["x-inferbus-reason"] == "rate_limited"
                assert refused.headers["x-should-retry"] == "true"
                assert 500 < int(refused.headers["retry-after"]) <= 600
                assert int(refused.headers["retry-after-ms"]) <= int(refused.headers["retry-after"]) * 1000
                assert refused.json["error"]["message"] == "Rate limit exceeded. Please slow down your requests."
            assert "secret" not in gateway.log

    def test_of_a_full_queue_comes_at_once(self, own_broker: Mosquitto, start_worker: StartWorker) -> None:
        start_worker(
            broker=own_broker, rate_limit="off", **SLOW, simulated_capacity=1, queue_size=2, workers=1, max_workers=1
        )
        with GatewayProcess(own_broker) as gateway, gateway.stream() as first:
            assert next(first.texts())
            with gateway.stream() as second, gateway.stream() as third:
                places = [stream.headers["x-inferbus-queue-position"] for stream in (first, second, third)]
                assert places == ["0", "0", "1"]
                assert next(third.lines()).startswith(": queued place=1")
                refused = gateway.ask()
                assert (refused.status, refused.json["error"]["code"]) == (503, "overloaded")
                assert refused.headers["x-should-retry"] == "true"
                waiting = {"activeRequests": 1, "queuedRequests": 2, "maxConcurrent": 1}
                until(lambda: gateway.get("/api/queue-status").json == waiting)

    def test_of_more_requests_than_the_gateway_takes(self, own_broker: Mosquitto, slow: Any) -> None:  # noqa: ARG002
        with GatewayProcess(own_broker, "--max-requests", "2") as gateway, gateway.stream(), gateway.stream():
            assert gateway.ask().headers["x-inferbus-reason"] == "overloaded"


class TestWhoeverLeaves:
    def test_of_a_stream_ends_its_generation(self, own_broker: Mosquitto, slow: Any) -> None:  # noqa: ARG002
        with GatewayProcess(own_broker) as gateway:
            with gateway.stream() as stream:
                assert next(stream.texts())
                until(lambda: running(gateway) == 1)
            until(lambda: running(gateway) == 0)
            assert 'requests_total{path="/v1/chat/completions",status="499"} 1.0' in gateway.get("/metrics").text

    def test_of_a_whole_answer_too(self, own_broker: Mosquitto, slow: Any) -> None:  # noqa: ARG002
        with GatewayProcess(own_broker) as gateway:
            connection = HTTPConnection(HOST, gateway.port)
            body = json.dumps(question("hello there"))
            connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
            until(lambda: running(gateway) == 1)
            connection.close()
            until(lambda: running(gateway) == 0)


class TestAWorkerThatVanishes:
    def test_ends_the_stream_with_an_error(self, own_broker: Mosquitto, slow: Any) -> None:
        with GatewayProcess(own_broker) as gateway, gateway.stream() as stream:
            events = stream.events()
            assert next(events)["choices"]
            until(lambda: running(gateway) == 1)
            slow.kill()
            assert list(events)[-1]["error"]["code"] == "engine_unavailable"

    def test_and_the_whole_answer_with_a_status_after_which_it_is_asked_again(
        self, own_broker: Mosquitto, slow: Any
    ) -> None:
        with GatewayProcess(own_broker) as gateway, ThreadPoolExecutor(1, "asking") as asking:
            asked = asking.submit(gateway.ask)
            until(lambda: running(gateway) == 1)
            slow.kill()
            refused = asked.result(PATIENCE)
            assert (refused.status, refused.headers["x-should-retry"]) == (503, "true")
            away = gateway.ask()
            assert (away.status, away.json["error"]["message"]) == (503, "The worker is away.")
            assert gateway.get("/readyz").json == {"ready": False, "missing": ["no worker is ready"]}
            slow.start()
            until(lambda: gateway.get("/readyz").status == 200)


class TestTheBroker:
    def test_may_go_and_come_back(self, own_broker: Mosquitto, worker: Any, gateway: GatewayProcess) -> None:  # noqa: ARG002
        own_broker.kill()
        until(lambda: gateway.get("/readyz").status == 503)
        assert gateway.get("/readyz").json["missing"] == ["there is no connection to the broker"]
        assert gateway.get("/healthz").status == 200
        refused = gateway.ask()
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert refused.json["error"]["message"] == "The gateway has no connection to the broker."
        own_broker.start()
        until(lambda: gateway.get("/readyz").status == 200)
        until(lambda: gateway.ask().status == 200)

    def test_that_drops_two_with_one_id_in_turn_is_not_asked_without_end(self, own_broker: Mosquitto) -> None:
        """Each of them would take it from the other several times a second, for ever."""
        two = [GatewayProcess(own_broker, "--id", "same", waits_for=[]) for _ in range(2)]
        with two[0], two[1]:
            until(lambda: any("given up" in one.log for one in two))
            weary = next(one for one in two if "given up" in one.log)
            said = weary.log
            time.sleep(3)
            assert weary.log == said

    def test_whose_workers_all_serve_other_topics_is_not_ready(self, own_broker: Mosquitto, worker: Any) -> None:  # noqa: ARG002
        topics = ("--identity", "topic", "--user", "door")
        with GatewayProcess(own_broker, *topics, waits_for=[]) as gateway:
            until(lambda: gateway.get("/api/health").json["workers"])
            answer = gateway.get("/readyz")
            assert (answer.status, answer.json["ready"]) == (503, False)
            assert answer.json["missing"] == ["the workers that are ready serve none of the topics of --identity topic"]

    def test_that_is_not_there_at_the_start_ends_it(self) -> None:
        done = inferbus("gateway", "--broker", "mqtt://127.0.0.1:1", "--listen", "0", "--connect-timeout", "1s")
        assert done.returncode == 3


class TestOtherSites:
    def test_get_nothing_where_no_key_is_needed(self, gateway: GatewayProcess) -> None:
        others: list[dict[str, Any]] = [{"host": "evil.example"}, {"origin": "http://evil.example"}, {"origin": "null"}]
        for headers in others:
            assert gateway.get("/v1/models", **headers).status == 403
            assert gateway.post("/v1/chat/completions", question("hello"), **headers).status == 403
        own: dict[str, Any] = {"host": f"localhost:{gateway.port}", "origin": f"http://localhost:{gateway.port}"}
        assert gateway.get("/v1/models", **own).status == 200
        assert "access-control-allow-origin" not in gateway.get("/v1/models").headers

    def test_may_be_let_in(self, own_broker: Mosquitto, worker: Any) -> None:  # noqa: ARG002
        app = "https://app.example.org"
        with GatewayProcess(own_broker, "--cors-origin", app) as gateway:
            answer = gateway.get("/v1/models", origin=app)
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, app)
            asked: dict[str, Any] = {"origin": app, "access_control_request_method": "POST"}
            assert gateway.get("/v1/chat/completions", "OPTIONS", **asked).status == 200
            assert gateway.get("/v1/models", origin="https://other.example").status == 403


class TestTheEnd:
    def test_lets_what_is_under_way_end(self, own_broker: Mosquitto, start_worker: StartWorker) -> None:
        start_worker(broker=own_broker, rate_limit="off", simulated_per_token="200ms")  # noqa: S106
        with GatewayProcess(own_broker) as gateway, gateway.stream("one two three four five") as stream:
            texts = stream.texts()
            said = next(texts)
            gateway.process.send_signal(signal.SIGTERM)
            assert said + "".join(texts) == "one two three four five"
            assert gateway.process.wait(PATIENCE) == 0
            assert re.findall(r"INFO (.*)", gateway.log)[-2:] == [
                "draining: 1 under way, for at most 30s; a second signal ends at once",
                "stopped",
            ]

    def test_is_at_once_where_it_is_wished_twice(self, own_broker: Mosquitto, slow: Any) -> None:  # noqa: ARG002
        with GatewayProcess(own_broker) as gateway, gateway.stream() as stream:
            assert next(stream.texts())
            gateway.process.send_signal(signal.SIGINT)
            time.sleep(0.2)
            gateway.process.send_signal(signal.SIGINT)
            assert gateway.process.wait(PATIENCE) == 0
