"""Many clients at once: limits answer at once, and every request is answered exactly once, on its own topic."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from inferbus_client.contract import topics
from support.bare_paho import leave
from support.listener import Listener
from support.mosquitto import Mosquitto, mosquitto_pub
from support.waiting import until

BUSY = "Please wait, your previous message is still being processed..."
LIMITED = "Error: Rate limit exceeded. Please slow down your requests."
OVERLOADED = "Server is overloaded. Please try again in a moment."

FOR_EVER: dict[str, Any] = {"simulated_per_token": "10m"}
SECOND: dict[str, Any] = {"simulated_first_token": "1s"}
TEN_MS: dict[str, Any] = {"simulated_first_token": "10ms"}

StartWorker = Callable[..., Any]


def test_the_eleventh_request_of_a_session_is_rate_limited(broker: Mosquitto, start_worker: StartWorker) -> None:
    start_worker(project="limited")
    with Listener(broker, "limited/assistant_response/#") as listener:
        for number in range(11):
            mosquitto_pub(broker, "limited/user_input/s1", f"message {number}")
            listener.wait(number + 1)
        mosquitto_pub(broker, "limited/user_input/s2", "another session")
        heard = listener.wait(12)
    assert [reply.text for reply in heard] == [*(f"message {n}" for n in range(10)), LIMITED, "another session"]
    refused = dict(heard[10].properties["UserProperty"])
    assert refused["status"] == "rate_limited"
    assert 0 < int(refused["retryAfterMs"]) <= 60_000


def test_a_second_request_in_a_busy_session(broker: Mosquitto, start_worker: StartWorker) -> None:
    start_worker(project="busy", **FOR_EVER, drain_timeout="0s")
    with Listener(broker, "busy/assistant_response/s1") as listener:
        mosquitto_pub(broker, "busy/user_input/s1", "the first one")
        mosquitto_pub(broker, "busy/user_input/s1", "second")
        assert [reply.text for reply in listener.wait(1)] == [BUSY]
        mosquitto_pub(broker, "busy/cancel/s1", None)
        assert [reply.text for reply in listener.wait(2)] == [BUSY, "Error: Request cancelled."]


@pytest.mark.alone  # the threads must come to take theirs before all of the crowd has come
def test_a_hundred_clients_and_a_queue_of_ten(broker: Mosquitto, start_worker: StartWorker) -> None:
    worker = start_worker(project="crowd", queue_size=10, workers=8, stats_interval="50ms", **SECOND)
    sessions = [f"s{number}" for number in range(100)]
    with (
        Listener(broker, topics.stats(worker.id)) as stats,
        Listener(broker, "crowd/assistant_response/#", "crowd/user_input/#") as listener,
    ):
        for session in sessions[:8]:
            listener.publish(f"crowd/user_input/{session}", f"I am {session}", qos=0)
        until(lambda: json.loads(stats.heard[-1].payload)["active"] == 8 if stats.heard else False)
        for session in sessions[8:]:
            listener.publish(f"crowd/user_input/{session}", f"I am {session}", qos=0)
        until(lambda: sum("assistant" in message.topic for message in listener.heard) >= 100)
        mosquitto_pub(broker, "crowd/user_input/end", "end")
        until(lambda: listener.heard[-1].topic == "crowd/assistant_response/end")
        replies = [message for message in listener.heard if "assistant" in message.topic][:-1]
    assert Counter(reply.topic for reply in replies) == {
        f"crowd/assistant_response/{session}": 1 for session in sessions
    }
    answered = [reply for reply in replies if reply.text == f"I am {reply.topic.rpartition('/')[2]}"]
    refused = [reply for reply in replies if reply.text == OVERLOADED]
    assert len(answered) + len(refused) == 100
    assert len(answered) >= 18  # eight worker threads and ten places
    assert refused


def test_a_flood_does_not_starve_another_project(broker: Mosquitto, start_worker: StartWorker) -> None:
    worker = start_worker(project=["flood", "quiet"], queue_size=40, workers=1, **TEN_MS, rate_limit="off")
    with Listener(broker, "flood/assistant_response/#", "quiet/assistant_response/#") as listener:
        worker.process.send_signal(signal.SIGSTOP)  # so that all of it has come before anything is answered
        try:
            for number in range(200):
                listener.publish(f"flood/user_input/s{number}", "x", qos=0)
            for number in range(5):
                listener.publish(f"quiet/user_input/s{number}", "quiet", qos=0)
        finally:
            worker.process.send_signal(signal.SIGCONT)
        until(lambda: len(listener.heard) >= 205)
        replies = list(listener.heard)
    quiet = [place for place, reply in enumerate(replies) if reply.topic.startswith("quiet/")]
    assert [replies[place].text for place in quiet] == ["quiet"] * 5
    answered_after = [reply for reply in replies[quiet[-1] :] if reply.text == "x"]
    assert len(answered_after) > 5  # the flood, which came first, still waits when the last quiet one is answered


class ClosedLoop:
    """A paho client for each session: the next request leaves when the reply to the one before is there."""

    def __init__(self, broker: Mosquitto, project: str, session: str, count: int) -> None:
        self.heard: list[tuple[str, str]] = []
        self.done = threading.Event()
        self._project, self._session, self._left = project, session, count
        self._paho = PahoClient(CallbackAPIVersion.VERSION2)
        self._paho.on_connect = lambda paho, *_: paho.subscribe(f"{project}/assistant_response/{session}", 1)
        self._paho.on_subscribe = lambda *_: self._send()
        self._paho.on_message = self._received
        self._paho.connect(broker.host, broker.port)
        self._paho.loop_start()

    def close(self) -> None:
        leave(self._paho)

    def _send(self) -> None:
        self._left -= 1
        body = json.dumps({"sessionId": self._session, "message": f"{self._session} {self._left}"})
        self._paho.publish(f"{self._project}/user_input", body, 1)

    def _received(self, _paho: object, _user: object, message: MQTTMessage) -> None:
        self.heard.append((message.topic, message.payload.decode()))
        if self._left:
            self._send()
        else:
            self.done.set()


def test_64_sessions_in_a_closed_loop(broker: Mosquitto, start_worker: StartWorker) -> None:
    """512 requests, 512 replies, each on its own topic, none lost, none twice."""
    start_worker(project="loop", rate_limit="off")
    with Listener(broker, "loop/assistant_response/#") as listener:
        loops = {f"s{number}": ClosedLoop(broker, "loop", f"s{number}", 8) for number in range(64)}
        try:
            assert all(loop.done.wait(60) for loop in loops.values())
        finally:
            for loop in loops.values():
                loop.close()
        until(lambda: len(listener.heard) >= 512)
        everything = Counter((message.topic, message.text) for message in listener.heard)
    expected = {
        session: [(f"loop/assistant_response/{session}", f"{session} {left}") for left in range(7, -1, -1)]
        for session in loops
    }
    assert {session: loop.heard for session, loop in loops.items()} == expected
    assert everything == Counter(reply for replies in expected.values() for reply in replies)
