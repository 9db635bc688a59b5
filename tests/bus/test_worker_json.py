"""The JSON half on a real broker: streams, cancels, deadlines, retries; each request ends exactly once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Self

import pytest

from support.listener import Listener
from support.mosquitto import Mosquitto, mosquitto_pub, mosquitto_rr, mosquitto_sub
from support.waiting import until
from support.worker import WorkerProcess

PROJECT, SLOW = "json", "json-slow"
#: Every word after the first takes so long; an answer of one word comes at once.
IN_TIME: dict[str, Any] = {"simulated_per_token": "5ms"}
FOR_EVER: dict[str, Any] = {"simulated_per_token": "10m"}
WORDS = " ".join(f"word{number}" for number in range(60))


@pytest.fixture(scope="module")
def worker(broker: Mosquitto) -> Iterator[WorkerProcess]:
    with WorkerProcess(broker, project=PROJECT, rate_limit="off", **IN_TIME) as worker:
        yield worker


@pytest.fixture(scope="module")
def slow_worker(broker: Mosquitto) -> Iterator[WorkerProcess]:
    """One request at a time, and each of several words takes for ever, unless it is cancelled."""
    with WorkerProcess(broker, project=SLOW, rate_limit="off", workers=1, **FOR_EVER, drain_timeout="0s") as worker:
        yield worker


class Dialogue:
    """Sends requests, and collects the JSON replies by request."""

    def __init__(self, broker: Mosquitto, project: str, message: str = "hello") -> None:
        self._message = message
        self._broker = broker
        self._project = project
        self._listener = Listener(broker, f"{project}/assistant_response/#")

    def __enter__(self) -> Self:
        self._listener.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.__exit__(None, None, None)

    def send(self, session: str, request: str, *options: str, **fields: Any) -> None:
        body = {"message": self._message, "requestId": request, "reply": "json", **fields}
        mosquitto_pub(self._broker, f"{self._project}/user_input/{session}", json.dumps(body), *options)

    def cancel(self, session: str, payload: str | None = None) -> None:
        mosquitto_pub(self._broker, f"{self._project}/cancel/{session}", payload)

    def replies(self, request: str) -> list[dict[str, Any]]:
        said = [json.loads(message.payload) for message in self._listener.heard]
        return [reply for reply in said if reply["requestId"] == request]

    def types(self, request: str) -> list[str]:
        return [reply["type"] for reply in self.replies(request)]

    def wait(self, request: str, *types: str) -> list[dict[str, Any]]:
        """The replies to a request, once the latest is one of `types`."""
        until(lambda: self.types(request)[-1:] and self.types(request)[-1] in types)
        return self.replies(request)


@pytest.fixture
def dialogue(broker: Mosquitto, worker: WorkerProcess) -> Iterator[Dialogue]:
    assert worker.process.poll() is None
    with Dialogue(broker, PROJECT) as dialogue:
        yield dialogue


@pytest.fixture
def slow(broker: Mosquitto, slow_worker: WorkerProcess) -> Iterator[Dialogue]:
    """A dialogue with the slow worker; whatever a test leaves running there is cancelled after it."""
    assert slow_worker.process.poll() is None
    with Dialogue(broker, SLOW, "take your time") as dialogue:
        yield dialogue
        for session in ("a", "b"):
            dialogue.cancel(session)


class TestReplies:
    def test_accepted_and_done(self, dialogue: Dialogue) -> None:
        dialogue.send("s1", "plain")
        accepted, done = dialogue.wait("plain", "done")
        assert accepted == {
            "v": 1,
            "type": "accepted",
            "requestId": "plain",
            "sessionId": "s1",
            "seq": 0,
            "queuePosition": 0,
            "etaMs": accepted["etaMs"],
        }
        assert (done["seq"], done["text"], done["finishReason"]) == (1, "hello", "stop")
        assert done["usage"]["completionTokens"] == 1
        assert 0 <= done["timing"]["queueMs"] <= done["timing"]["totalMs"]

    def test_a_stream(self, dialogue: Dialogue) -> None:
        dialogue.send("s2", "stream", message=WORDS, stream=True)
        replies = dialogue.wait("stream", "done", "error")
        assert [reply["seq"] for reply in replies] == list(range(len(replies)))
        assert {reply["type"] for reply in replies[1:-1]} == {"delta"}
        assert "".join(reply["text"] for reply in replies[1:-1]) == replies[-1]["text"] == WORDS
        assert 1 < len(replies[1:-1]) < 60  # coalesced by time, not one for each token

    def test_the_same_over_mosquitto_rr(self, broker: Mosquitto, worker: WorkerProcess) -> None:
        assert worker.process.poll() is None
        request = json.dumps({"message": "hello", "reply": "json", "requestId": "rr"})
        home = f"{PROJECT}/assistant_response/rr/1"
        assert json.loads(mosquitto_rr(broker, f"{PROJECT}/user_input/rr", home, request))["type"] == "accepted"

    def test_properties_ride_along(self, broker: Mosquitto, worker: WorkerProcess) -> None:
        assert worker.process.poll() is None
        with Listener(broker, f"{PROJECT}/assistant_response/p") as listener:
            request = json.dumps({"message": "hello", "reply": "json", "requestId": "props"})
            options = ["-V", "5", "-D", "publish", "correlation-data", "mine"]
            mosquitto_pub(broker, f"{PROJECT}/user_input/p", request, *options)
            accepted, done = listener.wait(2)
        assert {message.properties["CorrelationData"] for message in (accepted, done)} == {b"mine".hex()}
        assert done.properties["ContentType"] == "application/json"
        assert dict(done.properties["UserProperty"])["status"] == "ok"

    def test_a_json_reset_and_a_json_session(self, broker: Mosquitto, dialogue: Dialogue) -> None:
        mosquitto_pub(broker, f"{PROJECT}/user_input/s3", '{"reset": true, "reply": "json", "requestId": "reset"}')
        (done,) = dialogue.wait("reset", "done")
        assert (done["text"], done["sessionId"]) == ("Conversation reset.", "s3")
        with Listener(broker, f"{PROJECT}/session/response") as listener:
            mosquitto_pub(broker, f"{PROJECT}/session", '{"reply": "json", "requestId": "new"}')
            fresh = json.loads(listener.wait(1)[0].payload)
        assert (fresh["type"], fresh["requestId"], fresh["text"]) == ("done", "new", fresh["sessionId"])

    def test_an_explicit_zero_is_taken(self, dialogue: Dialogue) -> None:
        dialogue.send("s4", "zero", temperature=0, params={"seed": 0})
        assert dialogue.wait("zero", "done", "error")[-1]["type"] == "done"

    def test_max_tokens_cut_the_answer(self, dialogue: Dialogue) -> None:
        dialogue.send("s5", "cut", message="one two three", maxTokens=2)
        done = dialogue.wait("cut", "done")[-1]
        assert (done["text"], done["finishReason"]) == ("one two ", "length")


class TestCancelling:
    def test_a_running_request(self, slow: Dialogue) -> None:
        slow.send("a", "running")
        slow.wait("running", "accepted")
        slow.cancel("a")
        assert slow.wait("running", "error")[-1]["code"] == "cancelled"
        slow.send("a", "next")  # the session and the only worker thread are free again
        slow.wait("next", "accepted")
        slow.cancel("a")
        slow.wait("next", "error")
        assert slow.types("running") == ["accepted", "error"]

    def test_a_queued_request(self, slow: Dialogue) -> None:
        slow.send("a", "first")
        slow.send("b", "queued")
        slow.wait("queued", "accepted")
        slow.cancel("b", '{"requestId": "queued"}')
        assert slow.wait("queued", "error")[-1]["code"] == "cancelled"
        assert slow.types("first") == ["accepted"]

    def test_another_request_s_id_cancels_nothing(self, slow: Dialogue) -> None:
        slow.send("a", "mine")
        slow.wait("mine", "accepted")
        slow.cancel("a", '{"requestId": "theirs"}')
        slow.cancel("b")
        slow.send("a", "probe")  # comes after both cancels, and finds the session still busy
        assert slow.wait("probe", "error")[-1]["code"] == "session_busy"
        assert slow.types("mine") == ["accepted"]

    def test_too_late_changes_nothing(self, dialogue: Dialogue) -> None:
        dialogue.send("late", "first")
        dialogue.wait("first", "done")
        dialogue.cancel("late")
        dialogue.send("late", "second")
        dialogue.wait("second", "done")
        assert dialogue.types("first") == dialogue.types("second") == ["accepted", "done"]


class TestDeadlines:
    def test_while_generating(self, slow: Dialogue) -> None:
        slow.send("a", "generating", deadlineMs=4000)
        error = slow.wait("generating", "error")[-1]
        assert (error["code"], error["status"], error["retryable"]) == ("deadline_exceeded", 504, True)
        assert "while the answer was generated" in error["message"]

    def test_in_the_queue(self, slow: Dialogue) -> None:
        slow.send("a", "blocks")
        slow.wait("blocks", "accepted")
        slow.send("b", "waits", deadlineMs=300)
        assert "waited in the queue" in slow.wait("waits", "error")[-1]["message"]
        assert slow.types("blocks") == ["accepted"]

    def test_by_message_expiry(self, slow: Dialogue) -> None:
        slow.send("a", "expiry", "-V", "5", "-D", "publish", "message-expiry-interval", "1", deadlineMs=600_000)
        assert slow.wait("expiry", "error")[-1]["code"] == "deadline_exceeded"


class TestRetries:
    def test_a_repeat_in_flight_is_dropped(self, slow: Dialogue) -> None:
        for _ in range(3):
            slow.send("a", "repeat", clientId="c")
        slow.send("b", "behind")
        slow.wait("behind", "accepted")
        assert slow.types("repeat") == ["accepted"]

    def test_a_repeat_after_the_end_is_answered_again(self, dialogue: Dialogue) -> None:
        dialogue.send("again", "again", clientId="c")
        first = dialogue.wait("again", "done")[-1]
        dialogue.send("again", "again", clientId="c", message="another text")
        until(lambda: len(dialogue.replies("again")) == 3)
        assert dialogue.replies("again")[-1] == {**first, "seq": 0}

    def test_a_stranger_with_the_same_ids_gets_no_answer_of_ours(self, dialogue: Dialogue) -> None:
        dialogue.send("mine", "guessed", clientId="c", message="my secret")
        dialogue.wait("guessed", "done")
        dialogue.send("thief", "guessed", clientId="c", message="give")
        until(lambda: dialogue.types("guessed").count("done") == 2)
        stolen = [reply for reply in dialogue.replies("guessed") if reply["sessionId"] == "thief"]
        assert stolen[-1]["text"] == "give"


def test_many_streams_at_once_end_once_each(dialogue: Dialogue) -> None:
    requests = [f"many{number}" for number in range(40)]
    for number, request in enumerate(requests):
        dialogue.send(f"m{number}", request, message=f"{number} {WORDS}", stream=True)
    for number, request in enumerate(requests):
        replies = dialogue.wait(request, "done", "error")
        assert [reply["seq"] for reply in replies] == list(range(len(replies)))
        assert "".join(reply["text"] for reply in replies[1:-1]) == replies[-1]["text"] == f"{number} {WORDS}"
    assert all(dialogue.types(request).count("done") == 1 for request in requests)


def test_stats_are_published(broker: Mosquitto, start_worker: Any) -> None:
    worker = start_worker(project="stats", stats_interval="200ms")
    stats = json.loads(mosquitto_sub(broker, f"inferbus/workers/{worker.id}/stats"))
    assert (stats["worker"], stats["processed"], stats["queueSize"], stats["capacity"]) == (worker.id, 0, 1000, 256)
