"""What a link listens to: remembered, since subscriptions are lost with a connection, and made again on a new one."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from inferbus_client.errors import BrokerError, BrokerRefusedError, ConnectionLostError
from inferbus_client.mqtt.paho_client import PahoClient

log = logging.getLogger("inferbus.link")

#: Bytes of filters in one packet: what every broker takes, also one that has not said how much.
_PACKET_BYTES: Final = 2048
_PER_FILTER: Final = 3
#: Seconds until a filter that was granted before, and refused on a new connection, is asked for again.
_AGAIN: Final = (1.0, 2.0, 4.0, 5.0)
#: Filters that are under suspicion go in so many groups, so that the one that is guilty is found in a few rounds.
_GROUPS: Final = 16


@dataclass(slots=True)
class _Grant:
    """Somebody who waits until every one of these filters is granted, or one refused."""

    future: Future[None]
    missing: set[str]


@dataclass(slots=True)
class _Unheard:
    """A filter that is to be asked for again: why, how often it was refused, and when it is due."""

    error: BrokerRefusedError
    refusals: int
    due: float


#: Asked whether a filter that was granted before, and that the broker refuses now, is to be asked for again.
WhenRefused = Callable[[str, BrokerRefusedError], bool]


class Subscriptions:
    """Filters with their QoS, and the broker's answers that are awaited, over however many connections it takes.

    `expect`, `drop` and `unheard` may be used from any thread, the rest belongs to the network thread.
    """

    def __init__(self, when_refused: WhenRefused = lambda _name, _error: False) -> None:
        self._when_refused = when_refused
        self._unheard: dict[str, _Unheard] = {}
        self._filters: dict[str, int] = {}
        self._awaited: dict[int, list[str]] = {}
        self._grants: list[_Grant] = []
        self._expected: set[Future[None]] = set()
        self._is_over = False
        self._lock = threading.Lock()

    def expect(self, granted: Future[None]) -> None:
        """Somebody is about to subscribe, and will hear of it whatever happens: where all is over, that."""
        with self._lock:
            if not self._is_over:
                self._expected.add(granted)
        granted.add_done_callback(self._expected.discard)
        if self._is_over:
            _settle(granted, _lost())

    def drop(self, topic_filter: str) -> None:
        self._filters.pop(topic_filter, None)
        self._unheard.pop(topic_filter, None)

    @property
    def unheard(self) -> BrokerRefusedError | None:
        """Why something that should be heard is not heard, for now."""
        return next((one.error for one in list(self._unheard.values())), None)

    def due(self) -> dict[str, int]:
        """What was refused, and is to be asked for again now."""
        if not self._unheard:
            return {}
        now = time.monotonic()
        names = [name for name, one in list(self._unheard.items()) if one.due <= now]
        for name in names:
            self._unheard[name].due = math.inf
        return {name: self._filters[name] for name in names if name in self._filters}

    def add(self, paho: PahoClient, filters: Mapping[str, int], granted: Future[None]) -> None:
        """Subscribe now and on every connection to come; `granted` hears the broker's answer."""
        self._filters.update(filters)
        self._grants = [grant for grant in self._grants if not grant.future.done()]
        self._grants.append(_Grant(granted, set(filters)))
        for packet in _packets(filters):
            self.request(paho, packet)

    def request(self, paho: PahoClient, filters: Mapping[str, int]) -> None:
        """Send a SUBSCRIBE. Where there is no connection, the next one's will do."""
        wanted: Any = list(filters.items())
        if paho.protocol == MQTTProtocolVersion.MQTTv5:
            # A retained message keeps its mark also when it is forwarded live, so that it can be told from others.
            wanted = [(name, SubscribeOptions(qos=qos, retainAsPublished=True)) for name, qos in wanted]
        result, mid = paho.subscribe(wanted)
        if result == MQTTErrorCode.MQTT_ERR_SUCCESS and mid is not None:
            self._awaited[mid] = list(filters)

    def batches(self, suspected: Callable[[str], bool]) -> Iterator[dict[str, int]]:
        """Everything, in packets to be sent on a new connection; what is suspected in small groups at the end."""
        everything = dict(self._filters)
        apart = {name: everything.pop(name) for name in list(everything) if suspected(name)}
        yield from _packets(everything)
        group = -(-len(apart) // _GROUPS)
        while apart:
            yield dict(apart.popitem() for _ in range(min(group, len(apart))))

    @property
    def unanswered(self) -> list[str]:
        return [name for names in self._awaited.values() for name in names]

    def answered(self, mid: int, reasons: Sequence[ReasonCode]) -> None:
        """A SUBACK has come."""
        for name, reason in zip(self._awaited.pop(mid, ()), reasons, strict=False):
            if reason.is_failure:
                self.refuse(name, BrokerRefusedError(f"the broker refused a subscription: {reason}"))
            else:
                self._grant(name)

    def refuse(self, name: str, error: BrokerRefusedError) -> None:
        """A filter is not granted: whoever waits for it hears that. Who does not wait was granted it before."""
        log.error("%s", error.reason)
        waiting = [grant for grant in self._grants if name in grant.missing and not grant.future.done()]
        if not waiting and name in self._filters and self._when_refused(name, error):
            refusals = self._unheard[name].refusals + 1 if name in self._unheard else 1
            patience = _AGAIN[min(refusals, len(_AGAIN)) - 1]
            self._unheard[name] = _Unheard(error, refusals, time.monotonic() + patience)
            return
        self.drop(name)
        for grant in waiting:
            _settle(grant.future, error)

    def lost(self) -> None:
        """The connection is gone: what was asked on it will be asked again."""
        self._awaited.clear()

    def abandon(self) -> None:
        """There will be no other connection."""
        with self._lock:
            self._is_over = True
            expected = list(self._expected)
        for granted in [*expected, *(grant.future for grant in self._grants)]:
            _settle(granted, _lost())
        self._grants.clear()

    def _grant(self, name: str) -> None:
        self._unheard.pop(name, None)
        for grant in self._grants:
            grant.missing.discard(name)
            if not grant.missing:
                _settle(grant.future, None)


def _packets(filters: Mapping[str, int]) -> Iterator[dict[str, int]]:
    packet: dict[str, int] = {}
    size = 0
    for name, qos in filters.items():
        size += len(name) + _PER_FILTER
        if packet and size > _PACKET_BYTES:
            yield packet
            packet, size = {}, len(name) + _PER_FILTER
        packet[name] = qos
    if packet:
        yield packet


def _lost() -> ConnectionLostError:
    return ConnectionLostError("the connection was lost before the broker answered")


def _settle(granted: Future[None], error: BrokerError | None) -> None:
    if granted.done():
        return
    if error is None:
        granted.set_result(None)
    else:
        granted.set_exception(error)
