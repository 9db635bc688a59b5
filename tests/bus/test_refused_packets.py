"""A broker that closes the connection on one packet, and cannot say why: the packet goes, everybody else stays."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

import pytest

from inferbus_client import Client, InvalidRequestError, MessageRefusedError
from support.fake_worker import FakeWorker, Wait, done
from support.gate import PUBLISH, SUBSCRIBE, Deed, Gate, Packet, Rule, hangs_up
from support.listener import Listener
from support.mosquitto import Mosquitto, mosquitto_pub
from support.waiting import until
from support.worker import WorkerProcess

_LIMIT: Final = 5000
_TOO_LARGE: Final = "x" * 2 * _LIMIT
_WORKER: Final[dict[str, Any]] = {"project": "refused", "rate_limit": "off", "mqtt_version": "3.1.1"}


@pytest.fixture(scope="module")
def narrow_broker() -> Iterator[Mosquitto]:
    """MQTT 3.1.1 has no way to say how large a packet may be: whoever sends a larger one is disconnected."""
    with Mosquitto(f"max_packet_size {_LIMIT}") as broker:
        yield broker


@pytest.fixture
def narrow_worker(narrow_broker: Mosquitto) -> Iterator[FakeWorker]:
    with FakeWorker(narrow_broker.port, project="narrow") as worker:
        yield worker


def client_of(broker: Mosquitto | Gate, worker: FakeWorker, **more: Any) -> Client:
    options = {"mqtt_version": "3.1.1", "pacing": 0, "timeout": 30, **more}
    return Client(broker.url, project=worker.project, **options)


class TestClient:
    def test_a_question_over_the_limit_ends_itself_alone(
        self, narrow_broker: Mosquitto, narrow_worker: FakeWorker
    ) -> None:
        narrow_worker.script = lambda request: [Wait(2), done(f"You said: {request['message']}")]
        with client_of(narrow_broker, narrow_worker) as client, ThreadPoolExecutor(4) as pool:
            others = [pool.submit(client.ask, f"question {number}", session=f"s{number}") for number in range(4)]
            until(lambda: len(narrow_worker.heard) == 4)
            with pytest.raises(MessageRefusedError, match="closes the connection") as caught:
                client.ask(_TOO_LARGE)
            assert caught.value.size > _LIMIT
            assert [other.result(30).text for other in others] == [f"You said: question {n}" for n in range(4)]
            assert client.ask("and later").text == "You said: and later"

    @pytest.mark.parametrize("qos", [0, 1, 2])
    def test_however_many_of_them_there_are(
        self, narrow_broker: Mosquitto, narrow_worker: FakeWorker, qos: int
    ) -> None:
        with client_of(narrow_broker, narrow_worker, qos=qos, first_timeout=1, retries=5) as client:
            client.ask("hi")  # a worker that knows request ids: only then is a message of QoS 0 sent again
            for _ in range(6):
                with pytest.raises(MessageRefusedError):
                    client.ask(_TOO_LARGE)
            assert client.ask("hi").text == "You said: hi"

    @pytest.mark.parametrize("version", ["3.1.1", "5"])
    def test_a_limit_that_is_known_is_kept(
        self, narrow_broker: Mosquitto, narrow_worker: FakeWorker, version: str
    ) -> None:
        """MQTT 5 tells it; where the broker cannot, a setting does."""
        limit = {"max_packet_bytes": _LIMIT} if version == "3.1.1" else {}
        lost = narrow_broker.log.count("disconnect")
        with client_of(narrow_broker, narrow_worker, mqtt_version=version, **limit) as client:
            with pytest.raises(InvalidRequestError) as caught:
                client.ask(_TOO_LARGE)
            assert caught.value.code == "message_too_large"
            assert client.ask("hi").text == "You said: hi"
            assert narrow_broker.log.count("disconnect") == lost

    @pytest.mark.parametrize("version", ["3.1.1", "5"])
    def test_a_forbidden_subscription_ends_its_ask_alone(
        self, broker: Mosquitto, fake_worker: FakeWorker, version: str
    ) -> None:
        with (
            Gate(broker.port, hangs_up(SUBSCRIBE, "/forbidden")) as gate,
            client_of(gate, fake_worker, mqtt_version=version) as client,
        ):
            assert client.ask("one", session="fine").text == "You said: one"
            for _ in range(4):
                with pytest.raises(MessageRefusedError, match=r"subscription to .*/forbidden"):
                    client.ask("two", session="forbidden")
            assert client.ask("three", session="fine").text == "You said: three"
            assert client.ask("four", session="other").text == "You said: four"

    def test_what_was_refused_is_tried_again_when_it_is_allowed(
        self, broker: Mosquitto, fake_worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("inferbus_client.mqtt.suspicion.MEMORY", 8.0)
        with (
            Gate(broker.port, hangs_up(PUBLISH, "/forbidden")) as gate,
            client_of(gate, fake_worker, first_timeout=5) as client,
        ):
            with pytest.raises(MessageRefusedError):
                client.ask("two", session="forbidden")
            gate.rule = lambda _packet: Deed.FORWARD
            time.sleep(8)
            assert client.ask("two", session="forbidden").text == "You said: two"

    def test_a_connection_that_is_lost_many_times_comes_back(self, broker: Mosquitto, fake_worker: FakeWorker) -> None:
        """Whatever was on its way then was no reason, and is delivered in the end."""
        lost: list[Packet] = []

        def rule(packet: Packet) -> Deed:
            if packet.kind == PUBLISH and len(lost) < 3:
                lost.append(packet)
                return Deed.HANG_UP if len(lost) != 2 else Deed.FORWARD
            return Deed.FORWARD

        with Gate(broker.port, rule) as gate, client_of(gate, fake_worker) as client:
            assert client.ask("hello").text == "You said: hello"


def too_large(packet: Packet) -> Deed:
    return Deed.HANG_UP if packet.kind == PUBLISH and packet.size > _LIMIT else Deed.FORWARD


def dotted(packet: Packet) -> Deed | bytes:
    """NATS 2.9 takes no dot in a topic."""
    return Deed.HANG_UP if packet.kind == PUBLISH and "." in packet.name else Deed.FORWARD


class TestWorker:
    @pytest.fixture
    def start(self, own_broker: Mosquitto) -> Iterator[Callable[..., WorkerProcess]]:
        """Starts a worker behind a gate; whoever asks it talks to the broker itself."""
        with Gate(own_broker.port) as gate:

            def start(rule: Rule, **options: Any) -> WorkerProcess:
                gate.rule = rule
                return WorkerProcess(cast("Mosquitto", gate), **{**_WORKER, **options})

            yield start

    @pytest.mark.parametrize("version", ["3.1.1", "5"])
    def test_an_answer_over_the_limit_becomes_an_error(
        self, own_broker: Mosquitto, start: Callable[..., WorkerProcess], version: str
    ) -> None:
        with (
            start(too_large, reply_qos=1, mqtt_version=version) as worker,
            Listener(own_broker, "refused/assistant_response/#") as heard,
        ):
            for number in range(5):
                ask(own_broker, f"large{number}", _TOO_LARGE)
                terminal(heard, number + 1)
            ask(own_broker, "small", "hi")
            codes = terminal(heard, 6)
            assert codes.pop("small") == "done"
            assert set(codes.values()) == {"engine_error"}
            assert worker.process.poll() is None
            assert "closes the connection on" in worker.log

    def test_one_that_is_known_to_be_over_it_breaks_nothing(
        self, own_broker: Mosquitto, start: Callable[..., WorkerProcess]
    ) -> None:
        limit = {"max_packet_bytes": _LIMIT}
        with (
            start(too_large, reply_qos=1, **limit) as worker,
            Listener(own_broker, "refused/assistant_response/#") as heard,
        ):
            ask(own_broker, "large", _TOO_LARGE)
            assert terminal(heard, 1) == {"large": "engine_error"}
            assert "connection to the broker lost" not in worker.log

    def test_at_qos_0_it_is_lost_and_the_worker_stays(
        self, own_broker: Mosquitto, start: Callable[..., WorkerProcess]
    ) -> None:
        with start(too_large) as worker, Listener(own_broker, "refused/assistant_response/#") as heard:
            for number in range(6):
                until(lambda: answers(own_broker, heard, f"before{number}"))  # noqa: B023
                ask(own_broker, "large", _TOO_LARGE)
            until(lambda: answers(own_broker, heard, "after"))
            assert worker.process.poll() is None

    @pytest.mark.parametrize("sessions", [["a.b"] * 8, [f"a.{number}" for number in range(8)]], ids=["one", "many"])
    def test_topics_that_the_broker_cannot_take(
        self, own_broker: Mosquitto, start: Callable[..., WorkerProcess], sessions: list[str]
    ) -> None:
        """As NATS takes no dot: eight sessions cost no more connections than it takes to see what they share."""
        with start(dotted) as worker, Listener(own_broker, "refused/assistant_response/#") as heard:
            for number, session in enumerate(sessions):
                until(lambda: answers(own_broker, heard, f"before-{number}"))  # noqa: B023
                ask(own_broker, session, "hi")
            until(lambda: answers(own_broker, heard, "after"))
            assert worker.process.poll() is None
            assert worker.log.count("connection to the broker lost") <= 5

    def test_one_who_sends_such_topics_does_not_stop_the_others_replies(
        self, own_broker: Mosquitto, start: Callable[..., WorkerProcess]
    ) -> None:
        with (
            start(dotted, ack="after-reply", reply_qos=1, workers=4) as worker,
            Listener(own_broker, "refused/assistant_response/#") as heard,
        ):
            for number in range(100):
                ask(own_broker, f"x.{number}" if number % 10 == 0 else f"s{number}", "hi")
            codes = terminal(heard, 90)
            assert set(codes.values()) == {"done"}
            assert worker.process.poll() is None


def ask(broker: Mosquitto, session: str, message: str) -> None:
    fields = {"message": message, "sessionId": session, "reply": "json", "maxTokens": 100_000}
    mosquitto_pub(broker, "refused/user_input", json.dumps(fields))


def answers(broker: Mosquitto, heard: Listener, session: str) -> bool:
    """Whether the worker answers now; what came while it was away is lost."""
    ask(broker, session, "hi")
    time.sleep(0.2)
    return session in ends(heard)


def ends(heard: Listener) -> dict[str, str]:
    """Terminal replies by session: `done`, or an error's code."""
    replies = [json.loads(message.payload) for message in list(heard.heard)]
    return {reply["sessionId"]: reply.get("code", "done") for reply in replies if reply["type"] in {"done", "error"}}


def terminal(heard: Listener, count: int) -> dict[str, str]:
    until(lambda: len(ends(heard)) >= count)
    return ends(heard)
