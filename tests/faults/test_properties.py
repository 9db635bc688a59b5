"""Trial 39: every MQTT 5 property in legal and illegal forms. One message at most is lost, never the connection."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast

import pytest

from inferbus_client import Client
from inferbus_client.contract.presence import Stats, decode_announcement
from support.fake_worker import FakeWorker
from support.injector import Injector
from support.listener import Listener
from support.mosquitto import Mosquitto
from support.mqtt_bytes import RESPONSE_TOPIC, packed, packet, raw_properties, text, user
from support.property_forms import BOM, HOME, ILLEGAL, ILLEGAL_TOPICS, LEGAL, ODD
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

_TOPIC: Final = "props/user_input/s1"
_MANY: Final = 100_000
_LOST: Final = "connection to the broker lost"
#: Seconds that others may wait. What is promised is 0.1 s; a busy machine takes longer for anything, but not the ten
#: seconds that it was once.
_PATIENCE: Final = 5.0


class Bench:
    """A worker behind an injector, a listener to its replies, and a stopwatch for what others wait."""

    def __init__(self, proxy: Injector, worker: WorkerProcess, listener: Listener) -> None:
        self.proxy, self.worker, self.listener = proxy, worker, listener
        self.slowest = 0.0
        self._asked = 0

    def ask_another(self) -> None:
        """What somebody else asks meanwhile is answered, and soon."""
        self._asked += 1
        topic = f"props/assistant_response/other-{self._asked}"
        began = time.monotonic()
        self.listener.publish(f"props/user_input/other-{self._asked}", "still there?", qos=0)
        until(lambda: self.replies(topic), every=0.001)
        self.slowest = max(self.slowest, time.monotonic() - began)

    def wait_for_replies(self, topic: str, count: int) -> None:
        until(lambda: self.replies(topic) == count)

    def replies(self, topic: str) -> int:
        return sum(message.topic == topic for message in self.listener.heard)

    def assert_alive(self) -> None:
        assert self.worker.process.poll() is None
        assert _LOST not in self.worker.log
        assert "Traceback" not in self.worker.log
        assert self.slowest < _PATIENCE

    def wait_for_an_answer(self, before: int) -> None:
        """Wait for the next message, after the first `before` ones, at the session's own topic or below it."""
        until(lambda: any(message.topic.startswith(HOME) for message in self.listener.heard[before:]))

    def inject(self, packets: bytes) -> None:
        self.proxy.inject(packets)
        self.ask_another()

    def wait_for_acknowledgement(self, id_: int) -> None:
        until(lambda: b"\x40\x02" + id_.to_bytes(2, "big") in self.proxy.said)

    def unreadable(self) -> int:
        """What the worker says in its stats: how many messages it could not read."""
        said = [message.payload for message in self.listener.heard if message.topic.endswith("/stats")]
        stats = decode_announcement(Stats, said[-1]) if said else None
        return 0 if stats is None else stats.unreadable_messages


@pytest.fixture(params=["on-receipt", "after-reply"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    options: dict[str, Any] = {"rate_limit": "off", "stats_interval": "100ms", "state_dir": tmp_path}
    with (
        Mosquitto("set_tcp_nodelay true") as broker,  # else what others wait is TCP's, and hides what is ours
        Injector(broker.port) as proxy,
        WorkerProcess(cast("Mosquitto", proxy), project="props", ack=request.param, **options) as worker,
        Listener(broker, "props/assistant_response/#", f"inferbus/workers/{worker.id}/stats") as listener,
    ):
        yield Bench(proxy, worker, listener)


def test_legal_properties_through_a_broker(bench: Bench, report: Callable[..., None]) -> None:
    """Trial 39: four of them once ended the worker."""
    answered = 0
    for _ in range(size(1, 50)):
        for properties in LEGAL.values():
            for qos in (0, 1):
                before = len(bench.listener.heard)
                bench.listener.publish(_TOPIC, "hello", qos=qos, properties=raw_properties(*properties))
                bench.wait_for_an_answer(before)
                bench.ask_another()
                answered += 1
        bench.assert_alive()
    report(39, f"{answered} with legal properties: all answered, others waited {1000 * bench.slowest:.0f} ms at most")


def test_odd_ones_that_no_broker_passes_on(bench: Bench) -> None:
    """Trial 39: MQTT advises against them, and leaves it to the reader; they are served."""
    for properties in (*LEGAL.values(), *ODD.values()):
        before = len(bench.listener.heard)
        bench.inject(packet(_TOPIC, b"hello", properties=packed(*properties)))
        bench.wait_for_an_answer(before)
    bench.assert_alive()


def test_illegal_packets(bench: Bench, report: Callable[..., None]) -> None:
    """Trial 39: each is dropped, counted, and acknowledged where somebody waits for that; nobody is answered."""
    wrong = [(_TOPIC.encode(), properties) for properties in ILLEGAL.values()]
    wrong += [(topic, b"\0") for topic in ILLEGAL_TOPICS.values()]
    rounds = size(1, 50)
    for _ in range(rounds):
        for number, (topic, properties) in enumerate(wrong, start=1000):
            bench.proxy.said.clear()
            bench.inject(packet(topic, b"hello", properties=properties))
            bench.inject(packet(topic, b"hello", properties=properties, qos=1, id_=number))
            bench.wait_for_acknowledgement(number)
    sent = 2 * len(wrong) * rounds
    bench.inject(packet(_TOPIC, b"hello", qos=3))
    bench.inject(packet(_TOPIC, b"hello", qos=1, id_=0))
    bench.inject(b"\x30\x02\x00\x05")
    until(lambda: bench.unreadable() == sent + 3)
    bench.assert_alive()
    assert not bench.replies(HOME)
    assert bench.worker.log.count("cannot be read") < 100  # once a second at most, however many there are
    report(39, f"{sent} illegal ones dropped and acknowledged, others waited {1000 * bench.slowest:.0f} ms at most")


@pytest.mark.alone
def test_a_flood_of_user_properties(bench: Bench, report: Callable[..., None]) -> None:
    """Trial 39: 10^5 of them once held up everybody for ten seconds; now each such message is served like another."""
    behind = (RESPONSE_TOPIC + text(f"{HOME}/before"), *[user("", "")] * _MANY)
    before = (*[user("", "")] * _MANY, RESPONSE_TOPIC + text(f"{HOME}/after"))
    for properties in (behind, before) * size(2, 50):
        bench.inject(packet(_TOPIC, b"hello", properties=packed(*properties)))
        bench.ask_another()
    until(lambda: bench.replies(f"{HOME}/before") == bench.replies(HOME) == size(2, 50))
    bench.listener.publish(_TOPIC, "hello", properties=raw_properties(*behind))
    until(lambda: bench.replies(f"{HOME}/before") == size(2, 50) + 1)
    bench.ask_another()
    bench.assert_alive()
    report(39, f"{_MANY} user properties a message: others waited {1000 * bench.slowest:.0f} ms at most")


def test_request_ids_that_some_readers_cannot_take(bench: Bench) -> None:
    """Trial 39: what a stranger calls his request is not written where it would disconnect who hears the reply."""
    for number in range(6):
        request = {"message": "hello", "requestId": f"{BOM}{number}", "sessionId": f"s{number}"}
        bench.listener.publish("props/user_input", json.dumps(request))
        bench.listener.publish("props/user_input", json.dumps({**request, "reply": "json", "sessionId": f"j{number}"}))
        bench.wait_for_replies(f"props/assistant_response/s{number}", 1)
        bench.wait_for_replies(f"props/assistant_response/j{number}", 2)
    in_json = [message for message in bench.listener.heard if message.topic.endswith("/j5")]
    assert [json.loads(message.payload)["requestId"] for message in in_json] == [f"{BOM}5"] * 2
    assert bench.listener.connections == 1


def test_a_stranger_on_a_client_s_reply_topic(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 39, the other end: the client too reads what anyone may write."""
    flood = (user("", ""),) * _MANY
    with (
        FakeWorker(own_broker.port) as worker,
        Client(own_broker.url, pacing=0, timeout=30) as client,
        Listener(own_broker) as stranger,
    ):
        client.ask("the first one: it subscribes")
        topic = str(worker.heard[-1]["replyTopic"])
        slowest = 0.0
        for properties in [*LEGAL.values(), flood] * size(1, 20):
            stranger.publish(topic, "noise", properties=raw_properties(*properties))
            began = time.monotonic()
            assert client.ask("and another").text == "You said: and another"
            slowest = max(slowest, time.monotonic() - began)
        assert client.is_v5
    report(39, f"a client's own answers took {1000 * slowest:.0f} ms at most meanwhile")
