"""A scripted worker: a bare paho client that answers as a test says, well or badly."""

from __future__ import annotations

import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from inferbus_client.contract.wire import Code, Failure
from inferbus_client.mqtt.sockets import acknowledge_at_once, send_at_once
from support.bare_paho import leave
from support.waiting import PATIENCE


@dataclass(frozen=True)
class Say:
    """Publish one JSON reply; `copies` 0 loses it (its number is used up all the same), 2 repeats it."""

    fields: Mapping[str, Any]
    copies: int = 1


@dataclass(frozen=True)
class SayText:
    """Publish bare text."""

    text: str


@dataclass(frozen=True)
class Wait:
    """Do nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class WaitForCancel:
    """Do nothing until the session is cancelled, at most so many seconds."""

    seconds: float = PATIENCE


Act = Say | SayText | Wait | WaitForCancel
Script = Callable[[Mapping[str, Any]], Iterable[Act]]


def accepted(queue_position: int = 0, *, eta_ms: int | None = None, copies: int = 1) -> Say:
    return Say({"type": "accepted", "queuePosition": queue_position, "etaMs": eta_ms}, copies)


def delta(text: str, *, copies: int = 1) -> Say:
    return Say({"type": "delta", "text": text}, copies)


def done(text: str, *, copies: int = 1, model: str | None = None) -> Say:
    usage = {"promptTokens": 3, "completionTokens": len(text.split())}
    timing = {"queueMs": 1.0, "firstTokenMs": 2.0, "totalMs": 3.0}
    named = {} if model is None else {"model": model}
    return Say(
        {"type": "done", "text": text, "finishReason": "stop", "usage": usage, "timing": timing, **named}, copies
    )


def error(code: Code, *, retry_after_ms: int | None = None, copies: int = 1) -> Say:
    failure = Failure(code)
    fields = {"status": failure.status, "message": failure.message, "retryable": failure.retryable}
    return Say({"type": "error", "code": code, "retryAfterMs": retry_after_ms, **fields}, copies)


def begun_anew(*says: Say, run: int = 1, worker: str = "gpu-2") -> Iterator[Say]:
    """What another worker of a group says that takes a request over: `accepted` first, numbered from 0 again."""
    for seq, say in enumerate((accepted(), *says)):
        named = {"worker": worker} if not seq else {}
        yield Say({**say.fields, "run": run, "seq": seq, **named}, say.copies)


def echo(request: Mapping[str, Any]) -> Iterable[Act]:
    """What a healthy worker does: streams word by word where that is asked for, and says which model answered."""
    yield accepted()
    text = f"You said: {request['message']}"
    if request.get("stream"):
        for word in text.split(" "):
            yield delta(word if word == "You" else f" {word}")
    yield done(text, model=request.get("model"))


@dataclass
class FakeWorker:
    """Serves one project on a broker until the `with` ends.

    Attributes:
        script: what to do with a request.
        heard: every request's fields, in the order they came.
        cancels: (session, payload) of every cancel.
        resets: every session that was reset.
        fresh_session: what it answers to whoever asks for a session.
    """

    port: int
    script: Script = echo
    project: str = "general"
    heard: list[dict[str, Any]] = field(default_factory=list)
    expiries: list[int | None] = field(default_factory=list)
    cancels: list[tuple[str, bytes]] = field(default_factory=list)
    resets: list[str] = field(default_factory=list)
    fresh_session: str = "fresh-session"

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(max_workers=64, thread_name_prefix="fake-worker")
        self._cancelled: dict[str, threading.Event] = {}
        self._correlations: dict[str, bytes] = {}
        self._ready = threading.Event()
        self._paho = PahoClient(
            CallbackAPIVersion.VERSION2, client_id=f"fake-{uuid.uuid4().hex[:8]}", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._paho.on_connect = self._connected
        self._paho.on_message = self._received
        self._paho.on_subscribe = lambda *_: self._ready.set()
        self._paho.on_publish = lambda *_: acknowledge_at_once(self._paho.socket())
        self._paho.on_socket_open = lambda _paho, _user, connection: send_at_once(connection)
        self._paho.reconnect_delay_set(1, 1)
        self._paho.connect("127.0.0.1", self.port)
        self._paho.loop_start()
        assert self._ready.wait(PATIENCE), "the fake worker got no subscription"
        return self

    def __exit__(self, *_: object) -> None:
        for cancelled in list(self._cancelled.values()):
            cancelled.set()
        self._pool.shutdown(cancel_futures=True)
        leave(self._paho)

    def publish(self, topic: str, payload: bytes | str, *, retain: bool = False) -> None:
        """Publish, and wait until the broker has it; not for a script."""
        self._paho.publish(topic, payload, 1, retain).wait_for_publish(PATIENCE)

    def _connected(self, *_: object) -> None:
        topics = ("user_input", "user_input/+", "session", "cancel/+")
        self._paho.subscribe([(f"{self.project}/{topic}", 1) for topic in topics])

    def _received(self, _paho: object, _user: object, message: MQTTMessage) -> None:
        acknowledge_at_once(self._paho.socket())
        _, kind, *rest = message.topic.split("/")
        if kind == "cancel":
            self.cancels.append((rest[0], bytes(message.payload)))
            self._cancelled.setdefault(rest[0], threading.Event()).set()
            return
        request = json.loads(message.payload)
        asked = message.properties
        self.expiries.append(getattr(asked, "MessageExpiryInterval", None))
        if (topic := getattr(asked, "ResponseTopic", None)) is not None:
            request["replyTopic"] = topic
            self._correlations[request["requestId"]] = getattr(asked, "CorrelationData", b"")
        if kind == "session":
            self._pool.submit(self._perform, request, [done(self.fresh_session)])
        elif request.get("reset"):
            self.resets.append(rest[0])
            self._pool.submit(self._perform, request, [done("Conversation reset.")])
        else:
            self.heard.append(request)
            self._pool.submit(self._perform, request, self.script(request))

    def _perform(self, request: Mapping[str, Any], acts: Iterable[Act]) -> None:
        session = request.get("sessionId", "fresh-session")
        numbers = itertools.count()
        for act in acts:
            if isinstance(act, Wait):
                time.sleep(act.seconds)
            elif isinstance(act, WaitForCancel):
                self._cancelled.setdefault(session, threading.Event()).wait(act.seconds)
            elif isinstance(act, SayText):
                self._paho.publish(request["replyTopic"], act.text, 1)
            else:
                head = {"v": 1, "requestId": request["requestId"], "sessionId": session, "seq": next(numbers)}
                properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
                if (correlation := self._correlations.get(request["requestId"])) is not None:
                    properties.CorrelationData = correlation
                for _ in range(act.copies):
                    reply = json.dumps({**head, **act.fields})
                    self._paho.publish(request["replyTopic"], reply, 1, properties=properties)
