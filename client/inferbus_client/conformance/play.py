"""Plays cases against a worker, as a client that knows nothing but the contract."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Final, NamedTuple

from paho.mqtt.client import topic_matches_sub
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from inferbus_client.conformance.case import Case, Expect, MqttVersion, Names, Replies, Send
from inferbus_client.conformance.judging import MismatchError, is_last, judge_message, judge_replies, shown
from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence
from inferbus_client.errors import InferbusError
from inferbus_client.fleet.watch import Watch, WorkerView
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Incoming
from inferbus_client.settings.client import ClientSettings
from inferbus_client.shown import shown_in_line

#: Seconds after the last step in which nothing more may come: nobody gets two ends.
_NOTHING_MORE: Final = 0.3
#: What a worker that means no good may send: replies to one request, how many times `timeout` they may take in all, and
#: messages of a case that nobody has looked at.
_MOST_REPLIES: Final = 1000
_LONGEST: Final = 4
_MOST_WAITING: Final = 2000
_PROTOCOLS: Final[dict[MqttVersion, MQTTProtocolVersion]] = {
    "3.1.1": MQTTProtocolVersion.MQTTv311,
    "5": MQTTProtocolVersion.MQTTv5,
}


class Verdict(NamedTuple):
    """How a case went: what was wrong, or None; and how many seconds it took."""

    problem: str | None
    seconds: float


class Player:
    """A client of one MQTT version. For one thread.

    Args:
        settings: how to reach the broker, and which project to ask.
        version: of MQTT.
        worker: whose presence and stats the cases are about.
        timeout: seconds to wait for each message.
    """

    def __init__(self, settings: ClientSettings, version: MqttVersion, worker: str, timeout: float) -> None:
        self._settings = settings
        self._version = version
        self._worker = worker
        self._timeout = timeout
        client_id = settings.client_id or f"inferbus-conformance-{uuid.uuid4().hex[:8]}"
        options = replace(settings.link_options(client_id), protocol=_PROTOCOLS[version])
        self._inbox = _Inbox()
        self._link = Link(options, on_message=self._inbox.put)

    def connect(self) -> None:
        """Connect, which has to be closed.

        Raises:
            BrokerError: nobody answers, or the broker does not let us in.
        """
        self._link.connect(self._settings.connect_timeout)

    def close(self) -> None:
        self._link.close()

    def play(self, case: Case) -> Verdict:
        """Play a case with a session of its own.

        Raises:
            BrokerError: the connection is lost, or the broker refuses a filter.
        """
        names = self._names()
        listen = [names.text(one) for one in case.listen]
        began = time.monotonic()
        self._inbox.begin(listen)
        self._link.subscribe(dict.fromkeys(listen, 1))
        problem = None
        try:
            for number, step in enumerate(case.steps, 1):
                try:
                    if step.send is not None:
                        self._send(step.send, names)
                    elif step.expect is not None:
                        self._expect(step.expect, names)
                    elif step.replies is not None:
                        self._replies(step.replies, names)
                    else:
                        self._inbox.stay_empty(step.silence or 0.0)
                except MismatchError as error:
                    problem = f"step {number}: {error}"
                    break
            else:
                self._inbox.stay_empty(_NOTHING_MORE)
        except MismatchError as error:
            problem = f"at the end: {error}"
        finally:
            for one in listen:
                self._link.unsubscribe(one)
        return Verdict(problem, time.monotonic() - began)

    def _names(self) -> Names:
        settings, mark = self._settings, uuid.uuid4().hex[:12]
        scope = settings.scope
        session = f"conformance-{mark}"
        return Names(
            {
                "scope": scope,
                "project": settings.project,
                "session": session,
                "home": topics.assistant_response(scope, session),
                "request": f"request-{mark}",
                "client": f"client-{mark}",
                "worker": self._worker,
            }
        )

    def _send(self, send: Send, names: Names) -> None:
        payload = names.text(send.payload).encode()
        if send.hexadecimal is not None:
            payload = bytes.fromhex(send.hexadecimal)
        elif send.fields is not None:
            payload = json.dumps(names.value(send.fields)).encode()
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if send.response_topic is not None:
            properties.ResponseTopic = names.text(send.response_topic)
        if send.correlation is not None:
            properties.CorrelationData = names.text(send.correlation).encode()
        if send.expiry is not None:
            properties.MessageExpiryInterval = send.expiry
        if send.properties:
            properties.UserProperty = [(name, names.text(value)) for name, value in send.properties.items()]
        has_properties = self._version == "5" and not properties.isEmpty()  # type: ignore[no-untyped-call]
        self._link.publish(
            names.text(send.topic), payload, qos=send.qos, properties=properties if has_properties else None
        )

    def _expect(self, expect: Expect, names: Names) -> None:
        message = self._next(names.text(expect.topic))
        judge_message(message, expect, names, has_properties=self._version == "5")

    def _replies(self, expect: Replies, names: Names) -> None:
        payloads: list[bytes] = []
        give_up = time.monotonic() + _LONGEST * self._timeout
        while not payloads or not is_last(payloads[-1]):
            if len(payloads) == _MOST_REPLIES or time.monotonic() > give_up:
                raise MismatchError(f"the replies go on after {len(payloads)}: {shown(payloads[-1])}")
            payloads.append(self._next(names.text(expect.topic)).payload)
        judge_replies(payloads, expect, names)

    def _next(self, topic_filter: str) -> Incoming:
        message = self._inbox.take(lambda one: topic_matches_sub(topic_filter, one.topic), self._timeout)
        if self._link.fatal is not None:
            raise self._link.fatal
        if message is None:
            raise MismatchError(f"nothing came on {topic_filter} within {self._timeout:g} s")
        return message


class _Inbox:
    """What has come and nobody has looked at. The network thread puts.

    What a case does not listen to is none of its business: a message of the case before may still be on its way, and
    amqtt now and then hands out one that nobody has subscribed to.
    """

    def __init__(self) -> None:
        self._filters: Sequence[str] = ()
        self._messages: list[Incoming] = []
        self._is_flooded = False
        self._came = threading.Condition()

    def put(self, message: Incoming) -> None:
        with self._came:
            if any(topic_matches_sub(one, message.topic) for one in self._filters):
                if len(self._messages) < _MOST_WAITING:
                    self._messages.append(message)
                else:
                    self._is_flooded = True
                self._came.notify_all()

    def begin(self, filters: Sequence[str]) -> None:
        """Forget what is here, and take what matches one of these from now on."""
        with self._came:
            self._filters = filters
            self._messages.clear()
            self._is_flooded = False

    def take(self, is_meant: Callable[[Incoming], bool], timeout: float) -> Incoming | None:
        """The first that is meant; None where there is none for so many seconds.

        Raises:
            MismatchError: there are too many others.
        """
        with self._came:
            self._came.wait_for(lambda: self._is_flooded or any(map(is_meant, self._messages)), timeout)
            if self._is_flooded:
                raise MismatchError(f"there are more than {_MOST_WAITING} messages that nobody waits for")
            for number, message in enumerate(self._messages):
                if is_meant(message):
                    return self._messages.pop(number)
        return None

    def stay_empty(self, seconds: float) -> None:
        """Wait so long.

        Raises:
            MismatchError: something is there, or comes.
        """
        with self._came:
            if self._came.wait_for(lambda: bool(self._messages), seconds):
                first = self._messages[0]
                raise MismatchError(f"nothing had to come, and there is {first.topic}: {shown(first.payload)}")


def versions_on(settings: ClientSettings) -> tuple[MqttVersion, ...]:
    """The versions of MQTT that the broker speaks; one that has 3.1.1 alone keeps to the contract, too.

    Raises:
        BrokerError: nobody answers, or the broker does not let us in.
    """
    link = Link(settings.link_options(f"inferbus-conformance-{uuid.uuid4().hex[:8]}"), on_message=lambda _message: None)
    with closing(link):
        link.connect(settings.connect_timeout)
        return ("3.1.1", "5") if link.is_v5 else ("3.1.1",)


def worker_of(settings: ClientSettings, timeout: float, name: str | None = None) -> str:
    """A worker that is ready and serves the project: the one of that name, else the first.

    Raises:
        InferbusError: there is none, and why.
    """
    with Watch(settings, f"inferbus-conformance-{uuid.uuid4().hex[:8]}", name) as watch:
        give_up = time.monotonic() + timeout
        while True:
            watch.gather()
            for worker, view in watch.workers.items():
                said = view.presence
                if said is not None and said.state == "ready" and settings.project in said.projects:
                    return worker
            if time.monotonic() >= give_up:
                break
        if name is not None:
            raise InferbusError(_why_not(name, watch.workers.get(name, WorkerView()).presence, settings))
    raise InferbusError(
        f"no worker that is ready serves {settings.project} on this bus; where the broker keeps what "
        "workers say from wildcards (RabbitMQ), name it: --worker NAME"
    )


def _why_not(worker: str, said: Presence | None, settings: ClientSettings) -> str:
    """Why a worker cannot be asked, by its presence; the others, where it has none."""
    if said is None:
        with Watch(settings, f"inferbus-conformance-{uuid.uuid4().hex[:8]}") as watch:
            watch.gather()
            others = ", ".join(watch.workers)
        there = f"; on this bus there is {shown_in_line(others)}" if others else ""
        return f"nothing has come on {topics.presence(worker)}{there}"
    if settings.project not in said.projects:
        return f"{worker} serves {shown_in_line(', '.join(said.projects))}, not {settings.project}"
    return f"{worker} is {said.state}, not ready"
