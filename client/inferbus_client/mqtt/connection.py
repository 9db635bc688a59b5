"""A link's connection to the broker: opened in the version that the broker speaks, and opened again when it was lost.

The network thread opens it. Others only look: whether it is up, and what the broker allows on it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from inferbus_client.errors import BrokerError, BrokerRefusedError, BrokerUnreachableError, ConnectionLostError
from inferbus_client.mqtt.broker_url import BrokerUrl
from inferbus_client.mqtt.handshake import BrokersWord, HungUpError, ProtocolRefusedError, SilentError, shake_hands
from inferbus_client.mqtt.network_loop import NetworkLoop
from inferbus_client.mqtt.options import LinkOptions, Will
from inferbus_client.mqtt.paho_client import PahoClient
from inferbus_client.mqtt.paho_setup import build_paho, open_connection
from inferbus_client.mqtt.sockets import send_at_once

log = logging.getLogger("inferbus.link")

#: The longest wait for a broker's answer to CONNECT.
_CONNACK_TIMEOUT: Final = 5.0
_RETRY_EVERY: Final = 0.25
_IDENTIFIERS: Final = 65535


class Connection:
    """What a link is connected by.

    Args:
        options: how to reach the broker.
        loop: runs while the broker's answer is awaited.
        closing: ends every wait.
        will: published by the broker when the connection dies.
        hear: gives a new client its callbacks, but for those that tell of the connection itself.
        on_taken_in: called when the broker has taken us in; sets `up`.

    Attributes:
        paho: what speaks on it; None before the first one. It stays the same over all later connections.
        url: which broker it is to; the one that is being tried, while there is none.
        up: set while there is a connection.
        is_opening: whether the system may keep the network thread waiting: for a connection, or for TLS.
        max_packet_size: bytes that the broker takes in one packet; None where there is no bound but the packet's own.
        receive_maximum: how many unacknowledged QoS 1 messages the broker takes at once.
        session_present: whether the broker has kept what it knew of us since the connection before
            (`LinkOptions.session_expiry`).
        shares: whether the broker has shared subscriptions, as far as it says: one that speaks MQTT 3.1.1 does not.
    """

    def __init__(
        self,
        options: LinkOptions,
        loop: NetworkLoop,
        closing: threading.Event,
        will: Will | None,
        *,
        hear: Callable[[PahoClient], None],
        on_taken_in: Callable[[PahoClient], None],
    ) -> None:
        self._options = options
        self.url = options.url
        self._loop = loop
        self._closing = closing
        self._will = will
        self._hear = hear
        self._on_taken_in = on_taken_in
        self._word = BrokersWord()
        self.paho: PahoClient | None = None
        self.up = threading.Event()
        self.is_opening = False
        self.max_packet_size = options.max_packet_bytes
        self.receive_maximum = _IDENTIFIERS
        self.session_present = False
        self.shares = True

    @property
    def is_v5(self) -> bool:
        return self.paho is not None and self.paho.is_v5

    @property
    def parting_word(self) -> str:
        """Why it was lost, as the broker says it."""
        return self._word.parting

    def set_will(self, will: Will) -> None:
        """What the broker publishes when the next connection dies."""
        self._will = will
        if self.paho is not None:
            self.paho.will_set(will.topic, will.payload, will.qos, retain=True)

    # --- opening; in the network thread ---

    def open(self, timeout: float) -> PahoClient:
        """Connect, trying again until `timeout` seconds have passed.

        Raises:
            BrokerUnreachableError: nobody answered in that time.
            BrokerRefusedError: the broker said no, which trying again does not change.
            ConnectionLostError: told to stop.
        """
        deadline = time.monotonic() + timeout
        # A broker that says nothing to MQTT 5 is to have its turn with 3.1.1, and half of its time for it.
        patience = min(_CONNACK_TIMEOUT, timeout / (2 * len(self._options.urls)))
        while not self._closing.is_set():
            try:
                return self._open_one_of_them(patience)
            except BrokerUnreachableError:
                if time.monotonic() + _RETRY_EVERY >= deadline or self._closing.wait(_RETRY_EVERY):
                    raise
        raise ConnectionLostError("told to stop")

    def _open_one_of_them(self, patience: float) -> PahoClient:
        """Try each broker once.

        Raises:
            BrokerRefusedError: each of them says no.
            BrokerUnreachableError: not all do, but nobody takes us in.
        """
        errors: list[BrokerError] = []
        for url in self._options.urls:
            self.url = url
            if errors and self._closing.is_set():
                break
            try:
                return self._open_in_some_version(patience)
            except (BrokerUnreachableError, BrokerRefusedError) as error:
                if len(self._options.urls) == 1:
                    raise
                log.warning("no connection: %s", error.reason)
                errors.append(error)
        kind = BrokerRefusedError if all(isinstance(error, BrokerRefusedError) for error in errors) else None
        raise (kind or BrokerUnreachableError)("; ".join(error.reason for error in errors))

    def open_again(
        self, paho: PahoClient, delay: float, *, prepare: Callable[[], None], on_failure: Callable[[], None]
    ) -> None:
        """Try each broker in turn until one works, in the same version, or until the end: backoff with jitter.

        Args:
            paho: what spoke on the connection that was lost.
            delay: seconds, at most, before the first try.
            prepare: called before each.
            on_failure: called after each that failed.
        """
        while not self._closing.wait(random.uniform(delay / 2, delay)):  # noqa: S311 - no secret
            if any(self._is_open_again(paho, url, prepare, on_failure) for url in self._options.urls):
                return
            delay = min(2 * delay, self._options.reconnect_max)

    def _is_open_again(
        self, paho: PahoClient, url: BrokerUrl, prepare: Callable[[], None], on_failure: Callable[[], None]
    ) -> bool:
        """Whether a broker has taken us in again, or nobody wants that any more."""
        if url != self.url:
            self.url = url
            paho.aim_at(url)
        prepare()
        try:
            self._shake_hands(paho, paho.reconnect, _CONNACK_TIMEOUT)
        except BrokerError as error:
            log.warning("no connection yet: %s", error.reason)
            on_failure()
            return self._closing.is_set()
        if self.up.is_set():
            log.info("connected again to %s", url) if self._options.others else log.info("connected again")
        return True

    def _open_in_some_version(self, patience: float) -> PahoClient:
        """MQTT 5 first. A broker that refuses it, in words, by closing the connection or by silence, gets 3.1.1."""
        if self._options.protocol is not None:
            return self._open_in(self._options.protocol, patience)
        try:
            return self._open_in(MQTTProtocolVersion.MQTTv5, patience)
        except (ProtocolRefusedError, HungUpError, SilentError) as refusal:
            paho = self._open_in(MQTTProtocolVersion.MQTTv311, patience)
            log.info("the broker speaks no MQTT 5 (%s); using MQTT 3.1.1", refusal.reason)
            return paho

    def _open_in(self, protocol: MQTTProtocolVersion, patience: float) -> PahoClient:
        options = replace(self._options, url=self.url)
        paho = build_paho(options, protocol, self._will)
        paho.on_connect = self._answered
        paho.on_disconnect = self._ended
        paho.on_socket_open = lambda _paho, _user, connection: send_at_once(connection)
        self._hear(paho)
        self.paho = paho
        try:
            self._shake_hands(paho, lambda: open_connection(paho, options), patience)
        except BaseException:
            self.paho = None
            paho.abandon()
            raise
        return paho

    def _shake_hands(self, paho: PahoClient, open_socket: Callable[[], Any], patience: float) -> None:
        self._word = BrokersWord()
        self.is_opening = True
        try:
            shake_hands(
                paho,
                self.url,
                open_socket,
                loop=self._loop,
                word=self._word,
                patience=patience,
                over=lambda: self.up.is_set() or self._closing.is_set(),
            )
        finally:
            self.is_opening = False

    # --- paho's callbacks; in the network thread too ---

    def _answered(self, paho: Any, _user: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        """A CONNACK has come."""
        if reason.is_failure:
            self._word.refuse(self.url, reason)
            return
        limits = (self._options.max_packet_bytes, getattr(properties, "MaximumPacketSize", None))
        self.max_packet_size = min((limit for limit in limits if limit is not None), default=None)
        self.session_present = bool(flags.session_present)
        self.receive_maximum = getattr(properties, "ReceiveMaximum", _IDENTIFIERS)
        self.shares = bool(getattr(properties, "SharedSubscriptionAvailable", 1))
        self._on_taken_in(paho)

    def _ended(self, _paho: Any, _user: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        self._word.part(reason)
