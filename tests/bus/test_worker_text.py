"""The text half of the contract on a real broker, with Mosquitto's own clients: what devices of years ago speak."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support.listener import Heard, Listener
from support.mosquitto import Mosquitto, mosquitto_pub, mosquitto_rr, mosquitto_sub
from support.worker import WorkerProcess

PROJECT = "text"
REPLIES = f"{PROJECT}/assistant_response/#"
EVERYTHING = (f"{PROJECT}/#", "elsewhere/#")


@pytest.fixture(scope="module")
def worker(broker: Mosquitto) -> Iterator[WorkerProcess]:
    with WorkerProcess(broker, project=PROJECT, rate_limit="off", reply_topic=["allowed/#"]) as worker:
        yield worker


pytestmark = pytest.mark.usefixtures("worker")


def ask(broker: Mosquitto, topic: str, message: str | bytes | None, *options: str) -> Heard:
    """Publish with mosquitto_pub; the one reply on any response topic."""
    with Listener(broker, REPLIES, f"{PROJECT}/session/response", "allowed/#", "elsewhere/#") as listener:
        mosquitto_pub(broker, topic, message, *options)
        return listener.wait(1)[0]


def user_properties(reply: Heard) -> dict[str, str]:
    return dict(reply.properties.get("UserProperty", []))


class TestRequests:
    def test_on_the_project_s_topic(self, broker: Mosquitto) -> None:
        reply = ask(broker, f"{PROJECT}/user_input", '{"sessionId": "s1", "message": "hello there"}')
        assert (reply.topic, reply.text) == (f"{PROJECT}/assistant_response/s1", "hello there")

    def test_on_a_session_s_topic(self, broker: Mosquitto) -> None:
        reply = ask(broker, f"{PROJECT}/user_input/s2", '{"message": "hello"}')
        assert (reply.topic, reply.text) == (f"{PROJECT}/assistant_response/s2", "hello")

    def test_in_plain_text(self, broker: Mosquitto) -> None:
        reply = ask(broker, f"{PROJECT}/user_input/s3", "wie geht's? 😀")
        assert (reply.topic, reply.text) == (f"{PROJECT}/assistant_response/s3", "wie geht's? 😀")

    def test_in_plain_text_without_a_session(self, broker: Mosquitto) -> None:
        reply = ask(broker, f"{PROJECT}/user_input", "hello")
        assert reply.topic.startswith(f"{PROJECT}/assistant_response/default-")

    def test_with_a_number_for_a_session(self, broker: Mosquitto) -> None:
        assert ask(broker, f"{PROJECT}/user_input", '{"sessionId": 7, "message": "x"}').topic.endswith("/7")

    @pytest.mark.parametrize("version", ["311", "5"])
    def test_from_either_version_of_mqtt(self, broker: Mosquitto, version: str) -> None:
        assert ask(broker, f"{PROJECT}/user_input/v", "hello", "-V", f"mqttv{version}").text == "hello"

    @pytest.mark.parametrize("qos", ["0", "1", "2"])
    def test_at_any_quality_of_service(self, broker: Mosquitto, qos: str) -> None:
        assert ask(broker, f"{PROJECT}/user_input/q", "hello", "-q", qos).text == "hello"

    def test_mosquitto_sub_hears_the_bare_answer(self, broker: Mosquitto) -> None:
        answer = mosquitto_rr(
            broker,
            f"{PROJECT}/user_input",
            f"{PROJECT}/assistant_response/s1/r1",
            '{"sessionId":"s1","message":"hello"}',
        )
        assert answer == "hello"

    def test_replies_are_not_retained(self, broker: Mosquitto) -> None:
        assert not ask(broker, f"{PROJECT}/user_input/s4", "hello").retain
        with Listener(broker, f"{PROJECT}/assistant_response/s4", "end") as listener:
            listener.publish("end", "")
            assert [message.topic for message in listener.wait(1)] == ["end"]


class TestResets:
    def test_an_empty_message_is_acknowledged(self, broker: Mosquitto) -> None:
        reply = ask(broker, f"{PROJECT}/user_input/r1", None)
        assert (reply.topic, reply.text) == (f"{PROJECT}/assistant_response/r1", "Conversation reset.")

    def test_a_reset_in_json_is_acknowledged(self, broker: Mosquitto) -> None:
        assert ask(broker, f"{PROJECT}/user_input/r2", '{"reset": true}').text == "Conversation reset."

    def test_an_empty_message_to_the_project_is_no_request(self, broker: Mosquitto) -> None:
        assert ask(broker, f"{PROJECT}/user_input", None).text.startswith("Error: Invalid request. ")


class TestNewSessions:
    def test_bare_text(self, broker: Mosquitto) -> None:
        reply = ask(broker, f"{PROJECT}/session", "please")
        assert reply.topic == f"{PROJECT}/session/response"
        assert ask(broker, f"{PROJECT}/user_input/{reply.text}", "hello").text == "hello"

    def test_at_a_response_topic(self, broker: Mosquitto) -> None:
        answer = mosquitto_rr(broker, f"{PROJECT}/session", f"{PROJECT}/session/response/me", "x")
        assert answer.startswith("default-")


class TestReplyTopics:
    @pytest.mark.parametrize(
        "topic", [f"{PROJECT}/assistant_response/s1", f"{PROJECT}/assistant_response/s1/a/b", "allowed/x"]
    )
    def test_a_legal_one(self, broker: Mosquitto, topic: str) -> None:
        request = json.dumps({"sessionId": "s1", "message": "hello", "replyTopic": topic})
        assert ask(broker, f"{PROJECT}/user_input", request).topic == topic

    @pytest.mark.parametrize(
        "topic",
        [
            "elsewhere/x",
            f"{PROJECT}/assistant_response/s2",
            f"{PROJECT}/user_input",
            f"{PROJECT}/assistant_response/s1/#",
            "$SYS/broker/load",
            "\ud800",
            f"{PROJECT}/assistant_response/s1/\uffff",
            f"{PROJECT}/assistant_response/s1/\U0001ffff",
        ],
    )
    def test_an_illegal_one_is_ignored(self, broker: Mosquitto, worker: WorkerProcess, topic: str) -> None:
        request = json.dumps({"sessionId": "s1", "message": "hello", "replyTopic": topic})
        reply = ask(broker, f"{PROJECT}/user_input/s1", request)
        assert reply.topic == f"{PROJECT}/assistant_response/s1"
        assert "connection to the broker lost" not in worker.log

    def test_mqtt_5_s_response_topic_wins(self, broker: Mosquitto) -> None:
        request = json.dumps({"message": "hello", "replyTopic": f"{PROJECT}/assistant_response/s1/payload"})
        wanted = f"{PROJECT}/assistant_response/s1/property"
        reply = ask(broker, f"{PROJECT}/user_input/s1", request, "-V", "5", "-D", "publish", "response-topic", wanted)
        assert reply.topic == wanted

    @pytest.mark.parametrize(
        "topic", [f"{PROJECT}/user_input", f"{PROJECT}/user_input/s1", "elsewhere/x", "inferbus/workers/x/status"]
    )
    def test_an_illegal_response_topic_is_ignored(self, broker: Mosquitto, topic: str) -> None:
        """Promise 27: one message in, one message out, and never where the requester could not publish itself."""
        with Listener(broker, *EVERYTHING, "inferbus/workers/x/#") as listener:
            mosquitto_pub(
                broker, f"{PROJECT}/user_input/s1", "hello", "-V", "5", "-D", "publish", "response-topic", topic
            )
            listener.wait(2)
            mosquitto_pub(broker, f"{PROJECT}/user_input/end", "end")
            heard = [message.topic for message in listener.wait(4)]
        assert heard == [
            f"{PROJECT}/user_input/s1",
            f"{PROJECT}/assistant_response/s1",
            f"{PROJECT}/user_input/end",
            f"{PROJECT}/assistant_response/end",
        ]


class TestMqtt5:
    def test_a_text_reply_is_machine_readable(self, broker: Mosquitto) -> None:
        request = '{"requestId": "r1", "sessionId": "s1", "message": "hello"}'
        correlation = ["-V", "5", "-D", "publish", "correlation-data", "mine"]
        reply = ask(broker, f"{PROJECT}/user_input", request, *correlation)
        assert user_properties(reply) == {"requestId": "r1", "sessionId": "s1", "status": "ok"}
        assert reply.properties["CorrelationData"] == b"mine".hex()
        assert reply.properties["ContentType"] == "text/plain; charset=utf-8"
        assert reply.text == "hello"

    def test_a_refusal_in_text_is_machine_readable(self, broker: Mosquitto) -> None:
        reply = ask(broker, f"{PROJECT}/user_input", '{"requestId": "r1", "sessionId": "s1", "message": ""}')
        assert user_properties(reply) == {"requestId": "r1", "sessionId": "s1", "status": "invalid_request"}

    @pytest.mark.parametrize("request_id", ["\uffff", "\ufdd0", "\U0001fffe", "\ufeff", "é", "x" * 128])
    def test_no_request_id_costs_the_connection(
        self, broker: Mosquitto, worker: WorkerProcess, request_id: str
    ) -> None:
        """Four requests with U+FFFF for an id once ended the worker."""
        request = json.dumps({"requestId": request_id, "sessionId": "s1", "message": "hello"})
        for _ in range(5):
            assert ask(broker, f"{PROJECT}/user_input/s1", request).topic == f"{PROJECT}/assistant_response/s1"
        assert "connection to the broker lost" not in worker.log


class TestRefusals:
    @pytest.mark.parametrize(
        ("payload", "sentence"),
        [
            (b'{"sessionId": "x"}', "Error: Invalid request. message: Field required."),
            (b"\xff\xfe", "Error: Invalid request. The payload is not UTF-8."),
            (b'{"message": ' + b"[" * 30_000, "Error: Invalid request. The payload nests too deep."),
            (b'{"message": "\\ud800"}', "Error: Invalid request. The payload has a lone surrogate."),
            (b"x" * 70_000, "Error: Message too large."),
            (b"x" * 3_000_000, "Error: Message too large."),
        ],
    )
    def test_each_with_its_sentence(self, broker: Mosquitto, payload: bytes, sentence: str) -> None:
        """Promise 25: one error each, and the worker goes on."""
        reply = ask(broker, f"{PROJECT}/user_input/bad", payload)
        assert (reply.topic, reply.text) == (f"{PROJECT}/assistant_response/bad", sentence)
        assert ask(broker, f"{PROJECT}/user_input/bad", "still there?").text == "still there?"

    @pytest.mark.parametrize("session", ["a b", "é", "x" * 129, "😀", "a$b", "%00"])
    def test_a_session_that_is_none(self, broker: Mosquitto, session: str) -> None:
        """Promise 26, as far as a broker lets it through."""
        reply = ask(broker, f"{PROJECT}/user_input/{session}", "hello")
        assert reply.text.startswith("Error: Invalid request. ")
        assert reply.topic.startswith(f"{PROJECT}/assistant_response/default-")

    def test_one_that_is_none_in_the_payload(self, broker: Mosquitto) -> None:
        for session in ("+", "#", "a/b", "$SYS", "\x00", "\ud800", "\uffff", "/".join("x" * 250), "x" * 60_000):
            reply = ask(broker, f"{PROJECT}/user_input", json.dumps({"sessionId": session, "message": "hello"}))
            assert reply.text.startswith("Error: Invalid request. ")


def test_retained_requests_are_dropped(own_broker: Mosquitto) -> None:
    """Promise 31: they lie there before the worker comes, and come again with every reconnect."""
    with Listener(own_broker, "general/assistant_response/#") as listener:
        mosquitto_pub(own_broker, "general/user_input/s1", "old news", "-r")
        mosquitto_pub(own_broker, "general/session", "old news", "-r")
        with WorkerProcess(own_broker):
            mosquitto_pub(own_broker, "general/user_input/s2", "news")
            assert [reply.text for reply in listener.wait(1)] == ["news"]


def test_two_projects_do_not_share_a_session(broker: Mosquitto, start_worker: object) -> None:
    assert callable(start_worker)
    start_worker(project=["iso-a", "iso-b"], rate_limit="off")
    with Listener(broker, "iso-a/#", "iso-b/#") as listener:
        mosquitto_pub(broker, "iso-a/user_input/s", "one")
        mosquitto_pub(broker, "iso-b/user_input/s", "two")
        replies = {message.topic: message.text for message in listener.wait(4) if "assistant" in message.topic}
    assert replies == {"iso-a/assistant_response/s": "one", "iso-b/assistant_response/s": "two"}


def test_presence_is_there_for_mosquitto_sub(broker: Mosquitto, worker: WorkerProcess) -> None:
    presence = json.loads(mosquitto_sub(broker, f"inferbus/workers/{worker.id}/status"))
    assert (presence["state"], presence["model"], presence["projects"]) == ("ready", "simulated", [PROJECT])
