"""A bare paho client that sends requests and keeps the ledger of their replies."""

from __future__ import annotations

import itertools
import json
import threading
import time
import uuid
from types import TracebackType
from typing import Any, Final, Protocol, Self

from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from support.bare_paho import leave
from support.ledger import Ledger
from support.waiting import PATIENCE, until

_KEPT_SECONDS: Final = 600


class Where(Protocol):
    """A broker, or a proxy before one."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


class Requester:
    """A context manager: inside the `with` it hears every reply of one project, and finds its way back by itself.

    Args:
        broker: where.
        project: whose requests it sends.
        ledger: what it writes down; a fresh one where none is given.
        qos: of requests.
        echo: whether every answer must be its question, as the simulated engine's is.
    """

    def __init__(
        self, broker: Where, project: str, ledger: Ledger | None = None, *, qos: int = 1, echo: bool = True
    ) -> None:
        self.ledger = Ledger() if ledger is None else ledger
        self._answer_with_another = False
        self._project, self._qos, self._echo = project, qos, echo
        self._name = f"requester-{uuid.uuid4().hex[:8]}"
        self._numbers = itertools.count()
        self._subscribed = threading.Event()
        self._address = (broker.host, broker.port)
        self._paho = PahoClient(CallbackAPIVersion.VERSION2, client_id=self._name, protocol=MQTTProtocolVersion.MQTTv5)
        self._paho.max_inflight_messages_set(1000)
        self._paho.reconnect_delay_set(1, 1)
        self._paho.on_connect = self._connected
        self._paho.on_subscribe = lambda *_: self._subscribed.set()
        self._paho.on_message = self._received

    def __enter__(self) -> Self:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = _KEPT_SECONDS
        self._paho.connect(*self._address, clean_start=False, properties=properties, keepalive=10)
        self._paho.loop_start()
        assert self._subscribed.wait(PATIENCE), "no subscription was granted"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        leave(self._paho)

    def send(self, text: str | None = None, *, session: str | None = None, **fields: Any) -> str:
        """Send a request in JSON, in a session of its own unless one is named.

        Returns:
            Its id.
        """
        request_id = f"{self._name}-{next(self._numbers)}"
        session = session or request_id
        text = f"say {request_id}" if text is None else text
        body = {"sessionId": session, "requestId": request_id, "message": text, "reply": "json", **fields}
        handles: list[MQTTMessageInfo] = []  # the reply may come before `publish` returns
        topic = f"{self._project}/assistant_response/{session}"
        expected = text if self._echo else None
        self.ledger.sent(request_id, topic, expected, lambda: bool(handles) and _has_left(handles[0]))
        handles.append(
            self._paho.publish(f"{self._project}/user_input", json.dumps(body, ensure_ascii=False), self._qos)
        )
        return request_id

    def answer_with_another(self) -> None:
        """Send a new request for each that ends, so that as many stay under way; until `stop_sending`."""
        self._answer_with_another = True

    def stop_sending(self) -> None:
        self._answer_with_another = False

    def settle(self, timeout: float = PATIENCE) -> None:
        """Wait until every request has been answered.

        Raises:
            AssertionError: some still wait after `timeout` seconds; it says what is known of them.
        """
        try:
            until(lambda: not self.ledger.unanswered, timeout, every=0.05)
        except AssertionError:
            raise AssertionError(f"unanswered after {timeout:g} s: {self.ledger.describe_unanswered()}") from None

    def settle_or_quiet(self, quiet: float, timeout: float = 60.0) -> None:
        """Wait until every request has been answered, or nothing has been heard for `quiet` seconds."""
        last, at = self.ledger.replies, time.monotonic()
        give_up = at + timeout
        while self.ledger.unanswered and time.monotonic() < min(at + quiet, give_up):
            time.sleep(0.05)
            if self.ledger.replies != last:
                last, at = self.ledger.replies, time.monotonic()

    def _connected(self, *_: object) -> None:
        self._paho.subscribe(f"{self._project}/assistant_response/#", 1)

    def _received(self, _paho: object, _user: object, message: MQTTMessage) -> None:
        ended = self.ledger.heard(message.topic, bytes(message.payload))
        if ended is not None and self._answer_with_another:
            self.send()


def _has_left(handle: MQTTMessageInfo) -> bool:
    try:
        return handle.is_published()
    except (RuntimeError, ValueError):
        return False  # there was no connection when it was sent
