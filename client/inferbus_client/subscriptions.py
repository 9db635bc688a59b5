"""What a link listens to: remembered, since subscriptions are lost with a connection, and made again on a new one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from inferbus_client.errors import BrokerError, BrokerRefusedError, ConnectionLostError
from inferbus_client.paho_client import PahoClient

log = logging.getLogger("inferbus.link")


class Subscriptions:
    """Filters with their QoS, and the broker's answers that are awaited.

    `add` and `drop` may be called from any thread, the rest belongs to the network thread.
    """

    def __init__(self) -> None:
        self._filters: dict[str, int] = {}
        self._awaited: dict[int, Future[None]] = {}

    def add(self, filters: Mapping[str, int]) -> None:
        self._filters.update(filters)

    def drop(self, topic_filter: str) -> None:
        self._filters.pop(topic_filter, None)

    def request(self, paho: PahoClient, filters: Mapping[str, int], granted: Future[None]) -> None:
        """Send a SUBSCRIBE; `granted` hears the broker's answer."""
        wanted: Any = list(filters.items())
        if paho.protocol == MQTTProtocolVersion.MQTTv5:
            # A retained message keeps its mark also when it is forwarded live, so that it can be told from others.
            wanted = [(name, SubscribeOptions(qos=qos, retainAsPublished=True)) for name, qos in wanted]
        result, mid = paho.subscribe(wanted)
        if result != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            _settle(granted, ConnectionLostError("not connected"))
        else:
            self._awaited[mid] = granted

    def restore(self, paho: PahoClient) -> None:
        """Subscribe to everything again, on a new connection."""
        if self._filters:
            self.request(paho, self._filters, Future())

    def answered(self, mid: int, reasons: Sequence[ReasonCode]) -> None:
        """A SUBACK has come."""
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            log.error("the broker refused a subscription: %s", refused[0])
        error = BrokerRefusedError(f"the broker refused a subscription: {refused[0]}") if refused else None
        _settle(self._awaited.pop(mid, None), error)

    def lost(self) -> None:
        """The connection is gone: nobody will answer what was asked on it."""
        awaited, self._awaited = self._awaited, {}
        for granted in awaited.values():
            _settle(granted, ConnectionLostError("the connection was lost before the broker answered"))


def _settle(granted: Future[None] | None, error: BrokerError | None) -> None:
    if granted is None or granted.done():
        return
    if error is None:
        granted.set_result(None)
    else:
        granted.set_exception(error)
