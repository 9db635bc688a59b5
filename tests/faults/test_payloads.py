"""Trial 25: payload bombs and a rain of mutated payloads. One answer each, and the worker none the worse."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from support.listener import Heard, Listener
from support.mosquitto import Mosquitto
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

_MB: Final = 1_000_000
_BOMBS: Final[dict[str, bytes]] = {
    "nested objects": b'{"a":' * 10_000,
    "nesting in a field": b'{"message": "x", "extra": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "long integer": b'{"message": "x", "maxTokens": ' + b"9" * 5000 + b"}",
    "NaN": b'{"message": "x", "temperature": NaN}',
    "infinity": b'{"message": "x", "temperature": 1e999}',
    "no UTF-8": b'{"message": "\xff\xfe"}',
    "lone surrogate": b'{"message": "\\ud800", "maxTokens": 0}',
    "many keys": b"{" + b",".join(b'"k%d":1' % number for number in range(6000)) + b"}",
    "same key": b"{" + b",".join(b'"message": 1' for _ in range(4000)) + b"}",
    "not a message": b'{"message": {"message": {"message": []}}}',
    "blank": b'{"message": "   "}',
    "a list of parts": b'{"message": [' + b",".join(b'{"type": "text"}' for _ in range(3000)) + b"]}",
}
#: What is no JSON object is a message in plain text, and answered as one.
_PLAIN: Final[dict[str, bytes]] = {"brackets": b"[" * 60_000, "truncated": b'{"message": "x', "a number": b"9" * 6000}
#: What a mutation puts in, besides random bytes.
_TOKENS: Final = (
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"true",
    b"1e999",
    b"-0",
    b"\\u0000",
    b"\xff",
    b"0" * 40,
)
_SEED: Final = json.dumps(
    {
        "message": "one two three", "requestId": "r1", "clientId": "c1", "sessionId": "s1", "temperature": 0.5,
        "topP": 0.9, "maxTokens": 10, "reply": "json", "stream": True, "deadlineMs": 60000,
        "replyTopic": "fuzz/assistant_response/s1", "systemPrompt": "be brief", "params": {"stop": ["x"], "seed": 7},
    }
).encode()  # fmt: skip
_WINDOW: Final = 200
#: More than is kept of a message; and more of them than Mosquitto has under way at once, 20, at QoS 1.
_TOO_LARGE: Final = 18 * 65536
_MANY: Final = 30


def is_terminal(message: Heard) -> bool:
    """Whether it ends its request: every text reply does, and two of the JSON ones."""
    try:
        kind = json.loads(message.payload)["type"]
    except (ValueError, TypeError, KeyError):
        return True
    return kind not in {"accepted", "delta"}


@pytest.mark.parametrize("name", _BOMBS | _PLAIN)
def test_a_bomb(name: str, broker: Mosquitto, bombed: WorkerProcess, report: Callable[..., None]) -> None:
    """Trial 25: refused, or taken for plain text, at a price in CPU that is no weapon; the next one is answered."""
    process = psutil.Process(bombed.pid)
    with Listener(broker, "bombs/assistant_response/#") as listener:
        before = process.cpu_times()
        listener.publish("bombs/user_input/s1", (_BOMBS | _PLAIN)[name])
        [reply] = listener.wait(1)
        after = process.cpu_times()
        listener.publish("bombs/user_input/s2", "still there?")
        assert [message.text for message in listener.wait(2)[1:]] == ["still there?"]
    assert reply.payload == _PLAIN.get(name) or reply.text.startswith("Error: Invalid request.")
    spent = max(after.user + after.system - before.user - before.system, 0.0)
    report(25, f"{name}: answered, {1000 * spent:.0f} ms CPU")


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1])
def test_a_huge_message(broker: Mosquitto, version: str, qos: int, report: Callable[..., None]) -> None:
    """Trial 25: far over the limit it is refused, and not even kept while it comes; so are many that come together."""
    megabytes, project = size(20, 250), f"huge-{version}-{qos}"
    with (
        WorkerProcess(broker, project=project, mqtt_version=version, rate_limit="off") as worker,
        Listener(broker, f"{project}/assistant_response/#") as listener,
    ):
        before = peak_memory(worker.pid)
        listener._paho.publish(f"{project}/user_input/s3", b"x" * megabytes * _MB, qos).wait_for_publish(120)
        for _ in range(_MANY):
            listener.publish(f"{project}/user_input/s3", b"x" * _TOO_LARGE, qos=qos)
        refused = [message.text for message in listener.wait(1 + _MANY, 60)]
        assert refused == ["Error: Message too large."] * (1 + _MANY)
        growth = peak_memory(worker.pid) - before
        listener.publish(f"{project}/user_input/s4", "still there?")
        assert listener.wait(2 + _MANY)[-1].text == "still there?"
        assert "connection to the broker lost" not in worker.log
    report(
        25, f"{megabytes} MB at QoS {qos} over MQTT {version}: refused, RSS grew by {growth / _MB:.0f} MB at its peak"
    )
    assert growth < 15 * _MB


def peak_memory(pid: int) -> int:
    """The most bytes that a process has ever had in memory."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


@pytest.fixture(scope="module")
def bombed(broker: Mosquitto) -> Any:
    with WorkerProcess(broker, project="bombs", rate_limit="off") as worker:
        yield worker


def mutated(chance: random.Random) -> bytes:
    """A request with one to six small things wrong in it; a few are nothing but noise."""
    if chance.random() < 0.05:
        return chance.randbytes(chance.randint(1, 200))
    payload = bytearray(_SEED)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(payload))
        match chance.randrange(4):
            case 0:
                payload[at] = chance.randrange(256)
            case 1:
                del payload[at : at + chance.randint(1, 8)]
            case 2:
                payload[at:at] = chance.choice(_TOKENS)
            case _:
                start = chance.randrange(len(payload))
                payload[at:at] = payload[start : start + chance.randint(1, 30)]
    return bytes(payload)


class Rain:
    """Sends payloads, never more than a window of them unanswered, and counts the terminal replies by topic."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._seen = 0
        self.ends: Counter[str] = Counter()

    def fall(self, count: int, chance: random.Random) -> None:
        for number in range(count):
            self._listener._paho.publish(f"fuzz/user_input/f{number}", mutated(chance), 0)
            if number % _WINDOW == _WINDOW - 1:
                self.wait_for(number + 1)
        self.wait_for(count)

    def wait_for(self, count: int) -> None:
        until(lambda: self._ended() >= count, every=0.002)

    def _ended(self) -> int:
        heard = self._listener.heard
        while self._seen < len(heard):
            message = heard[self._seen]
            self._seen += 1
            if is_terminal(message):
                self.ends[message.topic] += 1
        if self._seen > 10_000:  # what has been counted is not kept: there may be a million
            del heard[: self._seen]
            self._seen = 0
        return self.ends.total()


def test_a_rain_of_mutated_payloads(broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 25: every message gets one terminal reply, on its own topic; no thread is lost, memory is flat."""
    count, seed = size(4000, 1_000_000), random.randrange(2**32)  # noqa: S311 - no secret
    with (
        WorkerProcess(broker, project="fuzz", rate_limit="off", max_sessions=100, workers=8) as worker,
        Listener(broker, "fuzz/assistant_response/#") as listener,
    ):
        process, rain = psutil.Process(worker.pid), Rain(listener)
        rain.fall(_WINDOW, random.Random(seed))  # noqa: S311
        rain.ends.clear()
        threads, before, began = process.num_threads(), process.memory_info().rss, time.monotonic()
        rain.fall(count, random.Random(seed))  # noqa: S311
        rate = count / (time.monotonic() - began)
        growth = process.memory_info().rss - before
        assert process.num_threads() == threads
        assert worker.process.poll() is None
        assert "Traceback" not in worker.log
        assert "could not be" not in worker.log
    report(
        25, f"{count} mutated payloads (seed {seed}), {rate:.0f}/s: RSS growth {growth / _MB:.1f} MB, threads {threads}"
    )
    assert set(rain.ends.values()) == {1}
    assert set(rain.ends) == {f"fuzz/assistant_response/f{number}" for number in range(count)}
    assert growth < 60 * _MB
