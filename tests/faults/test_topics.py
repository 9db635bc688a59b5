"""Trials 26, 27 and 31: messages that would have the worker publish where it must not, or do old work again."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from support.fault_proxy import FaultProxy
from support.listener import Listener
from support.mosquitto import Mosquitto
from support.requester import Requester
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

_SESSIONS: Final = (
    "+", "#", "a/b", "/", "$SYS", "../x", "\0", "a\0b", "\ud800", "\uffff", "a b", "ä", "x" * 129, "x" * 70_000,
    "/".join("abc" for _ in range(250)), "\nx", "a\r\nb", '"', "{}", "%s", "*",
)  # fmt: skip
_REPLY_TOPICS: Final = (
    "deputy/user_input", "deputy/user_input/s1", "deputy/session", "deputy/cancel/s1", "deputy/assistant_response",
    "deputy/assistant_response/other", "deputy/assistant_response/s10",
    "inferbus/workers/w/status", "inferbus/workers/w/stats",
    "$SYS/broker/log", "$share/g/x", "a/#", "a/+/b", "#", "elsewhere", "x" * 60_000,
)  # fmt: skip
#: Four losses within 15 seconds look like two workers of one id, and end a worker.
_PAUSE: Final = 5.5


def test_topic_injection_by_session_id(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 26: refused, each on a topic of its own making; nobody is disconnected."""
    rounds = size(2, 200)
    with (
        WorkerProcess(own_broker, project="inject", rate_limit="off", max_message_bytes=500_000) as worker,
        Listener(own_broker, "inject/assistant_response/#", "$SYS/#") as listener,
    ):
        for number in range(rounds):
            for session in _SESSIONS:
                ids = dict.fromkeys(("sessionId", "requestId", "clientId"), session)
                listener.publish("inject/user_input", json.dumps({"message": "x", "reply": "json", **ids}))
            wait_for_replies(listener, (number + 1) * len(_SESSIONS))
        listener.publish("inject/user_input/ä b", "x")
        listener.publish("inject/user_input/$x", "x")
        listener.publish("inject/user_input/s1", "the end")
        until(lambda: replies(listener)[-1].endswith("/s1"))
        topics = replies(listener)[:-1]
        report(26, f"{len(topics)} refused, disconnects {worker.log.count('connection to the broker lost')}")
        assert "connection to the broker lost" not in worker.log
        assert worker.process.poll() is None
    assert len(topics) == rounds * len(_SESSIONS) + 2
    assert all(re.fullmatch(r"inject/assistant_response/default-[A-Za-z0-9_.:-]+", topic) for topic in topics)


def replies(listener: Listener) -> list[str]:
    """The topics of the replies so far."""
    return [message.topic for message in listener.heard if "/assistant_response/" in message.topic]


def wait_for_replies(listener: Listener, count: int) -> None:
    until(lambda: len(replies(listener)) >= count)


def test_the_confused_deputy(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 27: a requester cannot make the worker publish where it could not publish itself."""
    with (
        WorkerProcess(
            own_broker, project="deputy", rate_limit="off", max_message_bytes=500_000, worker_id="w"
        ) as worker,
        Listener(own_broker, "#") as listener,
    ):
        listener.wait(1)  # the presence
        sent = 0
        for _ in range(size(1, 20)):
            for topic in _REPLY_TOPICS:
                properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
                properties.ResponseTopic = topic
                listener.publish("deputy/user_input/s1", "by property", properties=properties)
                listener.publish("deputy/user_input/s1", json.dumps({"message": "by payload", "replyTopic": topic}))
                sent += 2
                wait_for_replies(listener, sent)
        requests = [message for message in listener.heard if message.topic == "deputy/user_input/s1"]
        others = [message.topic for message in listener.heard if message.topic not in _EXPECTED]
        report(
            27, f"{sent} messages in, {len(replies(listener))} out on the session's own topic, {len(others)} elsewhere"
        )
        assert "connection to the broker lost" not in worker.log
    assert len(requests) == len(replies(listener)) == sent
    assert others == []
    assert set(replies(listener)) == {"deputy/assistant_response/s1"}


_EXPECTED: Final = {"deputy/user_input/s1", "deputy/assistant_response/s1", "inferbus/workers/w/status"}


def test_retained_requests_are_never_run(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 31, retained: at the start, and after every reconnect, the broker hands them out again."""
    rounds = size(2, 10)
    with Listener(own_broker, "old/assistant_response/#") as listener, FaultProxy(own_broker.port) as proxy:
        for number in range(20):
            listener.publish(f"old/user_input/s{number}", "old news", retain=True)
        with WorkerProcess(cast("Mosquitto", proxy), project="old") as worker:
            reconnect(proxy, worker, rounds)
            listener.publish("old/user_input/new", "news", retain=True)  # retained now, and so delivered marked

            def answered() -> bool:
                listener.publish("old/user_input/new", "fresh")  # lost while the worker has not subscribed again
                return bool(listener.heard)

            until(answered, every=1)
            assert {message.text for message in listener.heard} == {"fresh"}
    report(31, f"20 retained requests, {rounds} reconnects: executed 0")


def test_a_redelivered_request_runs_once(own_broker: Mosquitto, tmp_path: Path, report: Callable[..., None]) -> None:
    """Trial 31, DUP: unacknowledged requests come again after every reconnect, and still run."""
    rounds = size(2, 10)
    options: dict[str, Any] = {"ack": "after-reply", "state_dir": tmp_path, "simulated_per_token": "10m"}
    with (
        FaultProxy(own_broker.port) as proxy,
        WorkerProcess(cast("Mosquitto", proxy), project="again", **options) as worker,
        Requester(own_broker, "again") as requester,
        Listener(own_broker) as publisher,
    ):
        running = [requester.send("one two", session=f"s{number}") for number in range(5)]
        until(lambda: requester.ledger.tally()["accepted"] == 5)
        reconnect(proxy, worker, rounds)
        assert [requester.ledger.rows[request].accepted for request in running] == [1] * 5
        for number in range(5):
            publisher.publish(f"again/cancel/s{number}", "")
        requester.settle()
        reconnect(proxy, worker, 1, before=rounds)
        requester.send("fine")
        requester.settle()
        report(31, f"5 requests under way, {rounds} reconnects: executed again 0", requester.ledger)
        assert [requester.ledger.rows[request].ends for request in running] == [["cancelled"]] * 5
        assert [requester.ledger.rows[request].accepted for request in running] == [1] * 5


def reconnected(worker: WorkerProcess, times: int) -> None:
    until(lambda: worker.log.count("connected again") >= times)


def reconnect(proxy: FaultProxy, worker: WorkerProcess, times: int, *, before: int = 0) -> None:
    """Reset the worker's connection so many times, slowly enough to be taken for bad luck."""
    for number in range(before, before + times):
        proxy.reset_all()
        reconnected(worker, number + 1)
        if before + times > 3:
            time.sleep(_PAUSE)
