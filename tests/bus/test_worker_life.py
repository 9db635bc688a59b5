"""A worker's life on a real broker: presence, Last Will, lost brokers, the stop order, exit statuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from inferbus_client.contract.presence import Presence, decode_announcement
from support.listener import Listener
from support.mosquitto import HOST, Mosquitto, free_port, mosquitto_pub, mosquitto_sub
from support.needs import needs_module, needs_program
from support.requester import Requester
from support.waiting import until
from support.worker import WorkerProcess

SHUTTING_DOWN = "Error: The server is shutting down. Please try again in a moment."
#: Every word after the first takes a second: long enough to be in flight, short enough to be waited for.
SECONDS_EACH: dict[str, Any] = {"simulated_per_token": "1s", "rate_limit": "off"}
FOR_EVER: dict[str, Any] = {"simulated_per_token": "10m", "rate_limit": "off"}


class NeverReady(WorkerProcess):
    """One whose model does not come up."""

    def start(self) -> None:
        self.process = self._popen()


def states(listener: Listener, worker: WorkerProcess) -> list[str]:
    topic = f"inferbus/workers/{worker.id}/status"
    said = [decode_announcement(Presence, heard.payload) for heard in listener.heard if heard.topic == topic]
    return [presence.state for presence in said if presence is not None]


def state_now(broker: Mosquitto, worker: WorkerProcess) -> str:
    """What a newcomer is told: the retained presence."""
    return str(json.loads(mosquitto_sub(broker, f"inferbus/workers/{worker.id}/status"))["state"])


def texts(listener: Listener) -> list[str]:
    return [heard.text for heard in listener.heard if "/assistant_response/" in heard.topic]


class TestPresence:
    def test_of_a_life_in_order(self, broker: Mosquitto) -> None:
        with Listener(broker, "inferbus/workers/+/status") as listener:
            with WorkerProcess(broker, project="life") as worker:
                assert state_now(broker, worker) == "ready"
            until(lambda: states(listener, worker)[-1:] == ["offline"])
            assert states(listener, worker) == ["loading", "ready", "draining", "offline"]
        assert state_now(broker, worker) == "offline"

    def test_who_asks_while_it_loads_hears_when_to_come_again(self, broker: Mosquitto, tmp_path: Path) -> None:
        config = tmp_path / "worker.yaml"
        # Nobody listens there, so the model's start is tried again and again.
        models = {"far": {"backend": "vllm", "url": f"http://127.0.0.1:{free_port()}"}}
        config.write_text(json.dumps({"models": models}))
        with (
            NeverReady(broker, project="loads", config=config) as worker,
            Listener(broker, "inferbus/workers/+/status", "loads/#") as listener,
        ):
            until(lambda: "connected to" in worker.log)
            message = json.dumps({"message": "hello", "reply": "json"})
            mosquitto_pub(broker, "loads/user_input/s1", message)
            until(lambda: texts(listener))
            error = json.loads(texts(listener)[0])
            assert (error["code"], error["retryAfterMs"]) == ("engine_unavailable", 5000)

    def test_sigkill_leaves_the_last_will(self, broker: Mosquitto) -> None:
        with (
            WorkerProcess(broker, project="killed") as worker,
            Listener(broker, "inferbus/workers/+/status") as listener,
        ):
            worker.kill()
            until(lambda: states(listener, worker)[-1:] == ["offline"])
        assert state_now(broker, worker) == "offline"


class TestLostBroker:
    def test_it_comes_back_after_a_restart(self, own_broker: Mosquitto) -> None:
        with WorkerProcess(own_broker, project="lost", rate_limit="off") as worker:
            for _ in range(2):
                own_broker.kill()
                own_broker.start()  # empty: no subscriptions, nothing retained
                with Listener(own_broker, "inferbus/workers/+/status", "lost/#") as listener:
                    until(lambda: states(listener, worker)[-1:] == ["ready"])
                    mosquitto_pub(own_broker, "lost/user_input/s1", "are you back?")
                    mosquitto_pub(own_broker, "lost/session", None)
                    until(lambda: "lost/session/response" in {heard.topic for heard in listener.heard})
                    until(lambda: texts(listener))
                    assert texts(listener) == ["are you back?"]
            assert worker.process.poll() is None

    def test_conversations_survive_it(self, own_broker: Mosquitto) -> None:
        with WorkerProcess(own_broker, project="lost", rate_limit="off") as worker:
            session = "lost/user_input/s1"
            with Listener(own_broker, "lost/assistant_response/#") as listener:
                mosquitto_pub(own_broker, session, '{"message": "one", "reply": "json"}')
                first = json.loads(listener.wait(2)[-1].payload)
            own_broker.restart()
            with Listener(own_broker, "inferbus/workers/+/status", "lost/assistant_response/#") as listener:
                until(lambda: states(listener, worker)[-1:] == ["ready"])
                mosquitto_pub(own_broker, session, '{"message": "one", "reply": "json"}')
                until(lambda: len(texts(listener)) >= 2)
                second = json.loads(texts(listener)[-1])
        assert second["usage"]["promptTokens"] > first["usage"]["promptTokens"]

    def test_requests_that_ran_meanwhile_free_their_sessions(self, own_broker: Mosquitto) -> None:
        with WorkerProcess(own_broker, project="lost", **SECONDS_EACH) as worker:
            with Listener(own_broker, "lost/assistant_response/#") as listener:
                mosquitto_pub(own_broker, "lost/user_input/s1", '{"message": "one two", "reply": "json"}')
                listener.wait(1)  # accepted
            own_broker.kill()
            own_broker.start()
            with Listener(own_broker, "inferbus/workers/+/status", "lost/assistant_response/#") as listener:
                until(lambda: states(listener, worker)[-1:] == ["ready"])
                until(lambda: self.answers(own_broker, listener), every=0.5)

    def answers(self, broker: Mosquitto, listener: Listener) -> bool:
        mosquitto_pub(broker, "lost/user_input/s1", "again")
        until(lambda: texts(listener))
        return "again" in texts(listener)


class TestStopping:
    @pytest.fixture
    def worker(self, broker: Mosquitto, request: pytest.FixtureRequest) -> Iterator[WorkerProcess]:
        with WorkerProcess(broker, project="stop", workers=2, **request.param) as worker:
            yield worker

    @pytest.fixture
    def listener(self, broker: Mosquitto) -> Iterator[Listener]:
        with Listener(broker, "stop/#", "inferbus/workers/+/status") as listener:
            yield listener

    def begin(self, broker: Mosquitto, listener: Listener, *sessions: str) -> None:
        """Send a request in each session, and wait until all are admitted."""
        for session in sessions:
            body = {"message": f"one {session}", "reply": "json", "requestId": session}
            mosquitto_pub(broker, f"stop/user_input/{session}", json.dumps(body))
        until(lambda: len(texts(listener)) >= len(sessions))

    def outcomes(self, listener: Listener) -> dict[str, list[Any]]:
        """The terminal replies of each JSON request: its text, or its failure's code."""
        ends: dict[str, list[Any]] = {}
        for text in texts(listener):
            if text.startswith("{") and (reply := json.loads(text))["type"] in {"done", "error"}:
                ends.setdefault(reply["requestId"], []).append(reply.get("text", reply.get("code")))
        return ends

    @pytest.mark.parametrize("worker", [{**SECONDS_EACH, "simulated_per_token": "3s"}], indirect=True)
    def test_what_is_in_flight_finishes_and_what_is_new_is_refused(
        self, broker: Mosquitto, listener: Listener, worker: WorkerProcess
    ) -> None:
        self.begin(broker, listener, "a", "b", "c", "d")  # two run, two wait
        worker.process.send_signal(signal.SIGTERM)
        until(lambda: "draining" in states(listener, worker))
        mosquitto_pub(broker, "stop/user_input/new", "too late?")
        assert worker.process.wait(60) == 0
        until(lambda: len(self.outcomes(listener)) == 4)
        assert self.outcomes(listener) == {session: [f"one {session}"] for session in "abcd"}
        until(lambda: states(listener, worker)[-1] == "offline")  # the last that it says
        assert [text for text in texts(listener) if not text.startswith("{")] == [SHUTTING_DOWN]
        assert states(listener, worker)[-2:] == ["draining", "offline"]

    @pytest.mark.parametrize("worker", [{**FOR_EVER, "drain_timeout": "500ms"}], indirect=True)
    def test_what_does_not_finish_in_time_ends_with_an_error(
        self, broker: Mosquitto, listener: Listener, worker: WorkerProcess
    ) -> None:
        """Promise 4: nothing ends as a truncated success."""
        self.begin(broker, listener, "a", "b", "c")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(60) == 0
        until(lambda: len(self.outcomes(listener)) == 3)
        assert self.outcomes(listener) == {session: ["shutting_down"] for session in "abc"}

    @pytest.mark.parametrize("worker", [{**FOR_EVER, "drain_timeout": "10m"}], indirect=True)
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_second_signal_forces(
        self, broker: Mosquitto, listener: Listener, worker: WorkerProcess, number: signal.Signals
    ) -> None:
        self.begin(broker, listener, "a", "b", "c")
        worker.process.send_signal(number)
        until(lambda: "draining" in states(listener, worker))
        worker.process.send_signal(number)
        assert worker.process.wait(60) == 130
        until(lambda: len(self.outcomes(listener)) == 3)
        assert self.outcomes(listener) == {session: ["shutting_down"] for session in "abc"}

    @pytest.mark.parametrize("worker", [{**FOR_EVER, "drain_timeout": "500ms"}], indirect=True)
    def test_a_stalled_broker_does_not_hold_it(self, own_broker: Mosquitto, worker: WorkerProcess) -> None:
        """Promise 4, fault 10."""
        del worker
        with WorkerProcess(own_broker, **FOR_EVER, drain_timeout="500ms") as stuck:
            mosquitto_pub(own_broker, "general/user_input/s", "one two")
            own_broker.pause()
            try:
                stuck.process.send_signal(signal.SIGTERM)
                assert stuck.process.wait(60) in {0, 1}
            finally:
                own_broker.resume()


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inferbus_worker", "serve", "--engine", "simulated", *arguments]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MQTT_", "INFERBUS_"))}
    return subprocess.run(
        command, env={**inherited, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def sentences(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What it complained about."""
    assert "Traceback" not in done.stderr + done.stdout
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    return [line["event"] for line in lines if line["level"] in {"error", "warning", "critical"}]


class TestExitStatus:
    def test_an_unreachable_broker(self) -> None:
        url = f"mqtt://{HOST}:{free_port()}"
        done = serve("--broker", url, "--broker-timeout", "1s")
        assert done.returncode == 3
        assert sentences(done) == [f"cannot reach the broker at {url}: Connection refused"]

    def test_a_broker_that_cannot_be_found(self) -> None:
        done = serve("--broker", "mqtt://no-such-host.invalid", "--broker-timeout", "1s")
        assert done.returncode == 3
        assert len(sentences(done)) == 1

    def test_something_that_is_no_broker(self) -> None:
        with socket.create_server((HOST, 0)) as silent:
            done = serve("--broker", f"mqtt://{HOST}:{silent.getsockname()[1]}", "--broker-timeout", "1s")
        assert done.returncode == 3
        assert "does not speak MQTT" in sentences(done)[-1]

    @pytest.fixture
    def guarded_broker(self, tmp_path: Path) -> Iterator[Mosquitto]:
        """Lets in alice, whose password is `right`."""
        passwords = tmp_path / "passwords"
        subprocess.run([needs_program("mosquitto_passwd"), "-b", "-c", passwords, "alice", "right"], check=True)
        with Mosquitto("allow_anonymous false", f"password_file {passwords}") as broker:
            yield broker

    @pytest.mark.parametrize("password", ["wrong", ""])
    def test_wrong_credentials(self, guarded_broker: Mosquitto, password: str) -> None:
        url = guarded_broker.url.replace("//", "//alice@")
        done = serve("--broker", url, "--broker-timeout", "1s", INFERBUS_PASSWORD=password)
        assert done.returncode == 3
        assert sentences(done) == [f"the broker at {url} refused us: Not authorized"]

    def test_right_ones(self, guarded_broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
        """The password comes by the environment, and no one else hears of it."""
        command = [sys.executable, "-m", "inferbus_worker", "serve", "--engine", "simulated"]
        command += ["--broker", guarded_broker.url, "--username", "alice", "--worker-id", "alices"]
        monkeypatch.setenv("INFERBUS_PASSWORD", "right")
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            try:
                as_alice = ("-u", "alice", "-P", "right")
                until(lambda: "ready" in mosquitto_sub(guarded_broker, "inferbus/workers/alices/status", *as_alice))
                arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            finally:
                process.terminate()
            log = process.stderr.read()
        assert process.returncode == 0
        assert b"right" not in arguments
        assert "right" not in log

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--no-such-option"],
            ["--no-such-option", "5"],
            ["--workers", "none"],
            ["--rate-limit", "fast"],
            ["--project", "a/b"],
            ["--broker", "http://x"],
            ["--config", "/no/such/file.yaml"],
            ["--workers"],
        ],
    )
    def test_a_bad_option(self, arguments: list[str]) -> None:
        done = serve(*arguments, "--broker-timeout", "1s")
        assert done.returncode == 2
        assert done.stderr.strip()
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_broker_that_speaks_mqtt_3_alone() -> None:
    """Such as amqtt, which refuses MQTT 5, by silence where there is a Last Will."""
    needs_module("amqtt")
    from inferbus_worker.demo.embedded_broker import EmbeddedBroker  # noqa: PLC0415 - a part that may be missing

    command = [sys.executable, "-m", "inferbus_worker", "serve", "--engine", "simulated", "--worker-id", "old"]
    with EmbeddedBroker() as broker:
        url = f"mqtt://{broker.host}:{broker.port}"
        with subprocess.Popen([*command, "--broker", url], stderr=subprocess.PIPE, text=True) as process:
            try:
                until(lambda: "ready" in mosquitto_sub(broker, "inferbus/workers/old/status"))
                with Listener(
                    cast("Mosquitto", broker), "general/#", protocol=MQTTProtocolVersion.MQTTv311
                ) as listener:
                    mosquitto_pub(broker, "general/user_input/s1", "hello from MQTT 3")
                    until(lambda: texts(listener) == ["hello from MQTT 3"])
                    mosquitto_pub(broker, "general/user_input/s1", None)
                    until(lambda: texts(listener)[1:] == ["Conversation reset."])
            finally:
                process.terminate()
            assert process.stderr is not None
            log = process.stderr.read()
        assert process.returncode == 0
        assert "the broker speaks no MQTT 5" in log


def test_what_waits_keeps_its_bound_while_a_worker_drains_without_a_broker(own_broker: Mosquitto) -> None:
    options: dict[str, Any] = {"max_outbound_bytes": "64KiB", "simulated_first_token": "10s", "drain_timeout": "30s"}
    with (
        WorkerProcess(own_broker, project="drain", rate_limit="off", **options) as worker,
        Requester(own_broker, "drain", qos=0) as requester,
    ):
        requests = [requester.send("x" * 20_000) for _ in range(20)]
        until(lambda: all(requester.ledger.rows[request].accepted for request in requests))
        own_broker.kill()
        until(lambda: "connection to the broker lost" in worker.log)
        os.kill(worker.pid, signal.SIGTERM)
        until(lambda: "draining" in worker.log)
        assert "the broker takes no more replies" not in worker.log
        until(lambda: "the broker takes no more replies" in worker.log)
