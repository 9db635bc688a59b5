"""How packets cross to the broker: as they come, or one at a time where one of them is under suspicion.

While one crosses alone nothing else is sent (`is_open` is False): behind it goes a ping, and the answer to that shows
that the broker has taken it. After a connection that may have been closed for what was on its way, the subscriptions
and the messages that were not acknowledged go first, and in this way.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Final

from paho.mqtt.client import MQTTMessage

from inferbus_client.errors import MessageRefusedError
from inferbus_client.mqtt.message import OnRefused
from inferbus_client.mqtt.paho_client import PahoClient
from inferbus_client.mqtt.subscriptions import Subscriptions
from inferbus_client.mqtt.suspicion import Finding, Parcel, Suspicion

log = logging.getLogger("inferbus.link")

#: A broker that acknowledges nothing for so many seconds gets everything at once again: perhaps it never does.
_HELD_SECONDS: Final = 10.0


class _Sent:
    """A message of QoS 0: nobody acknowledges it."""

    def is_published(self) -> bool:
        return True


class _Refused:
    """A message that was not sent, since the broker closes the connection on it."""

    def is_published(self) -> bool:
        raise RuntimeError("refused")


SENT: Final = _Sent()
REFUSED: Final = _Refused()


class Crossing:
    """The traffic to the broker, over all connections of a link. For the network thread alone."""

    def __init__(self, subscriptions: Subscriptions) -> None:
        self.suspicion = Suspicion()
        self._subscriptions = subscriptions
        self._batches: deque[Mapping[str, int]] = deque()
        self._alone: list[Parcel] = []
        self._alone_refused: OnRefused | None = None
        self._pinged = False
        self._held: deque[tuple[int, Parcel]] = deque()
        self._held_until = 0.0
        self._by_packet_id: dict[int, OnRefused] = {}

    @property
    def is_open(self) -> bool:
        """Whether packets go as they come."""
        return not (self._alone or self._batches or self._held)

    # --- packets ---

    def subscribe(self, paho: PahoClient, filters: Mapping[str, int], granted: Future[None]) -> None:
        """Subscribe now and on every connection to come; `granted` hears the broker's answer."""
        parcels = [Parcel(name, is_filter=True) for name in filters]
        for parcel in parcels:
            if self.suspicion.is_alert and self.suspicion.refuses(parcel):
                granted.set_exception(_refusal(parcel))
                return
        self._subscriptions.add(paho, filters, granted)
        self._watch(parcels)

    def refuses(self, parcel: Parcel, on_refused: OnRefused | None) -> bool:
        """Whether a message must not be sent; whoever wants to send it is told why."""
        if not self.suspicion.refuses(parcel):
            return False
        _tell(on_refused, _refusal(parcel))
        return True

    def sent(self, packet_id: int, parcel: Parcel, on_refused: OnRefused | None) -> None:
        """A message has been sent; at QoS 0, without a packet id (0), its writing was noted by itself."""
        if packet_id and on_refused is not None:
            self._by_packet_id[packet_id] = on_refused
        if self._watch([parcel]):
            self._alone_refused = on_refused

    def acknowledged(self, packet_id: int) -> None:
        """The broker has a message: nobody has to hear of its refusal any more, who may well hold all of it."""
        self._by_packet_id.pop(packet_id, None)

    def _watch(self, parcels: list[Parcel]) -> bool:
        """Let these, which were just sent, cross alone where they are under suspicion."""
        if not self.suspicion.is_alert or not any(map(self.suspicion.suspects, parcels)):
            return False
        self._alone, self._alone_refused, self._pinged = parcels, None, False
        return True

    def attend(self, paho: PahoClient) -> None:
        """Go on where something crosses alone: called whenever anything may have moved."""
        if self._alone and not self._is_across(paho):
            return
        if not self._batches and (due := self._subscriptions.due()):
            self._batches.append(due)
        if self._batches:
            self._alone, self._pinged = self._request(paho, self._batches.popleft()), False
        elif self._held:
            self._settle_held(paho)
            paho.send_held(one_at_a_time=bool(self._held))

    def _request(self, paho: PahoClient, filters: Mapping[str, int]) -> list[Parcel]:
        """Ask for what is not known to close the connection."""
        parcels = [Parcel(name, is_filter=True) for name in filters]
        refused = [parcel for parcel in parcels if self.suspicion.is_alert and self.suspicion.refuses(parcel)]
        for parcel in refused:
            self._subscriptions.refuse(parcel.topic, _refusal(parcel))
        wanted = [parcel for parcel in parcels if parcel not in refused]
        if wanted:
            self._subscriptions.request(paho, {parcel.topic: filters[parcel.topic] for parcel in wanted})
        return wanted

    def _is_across(self, paho: PahoClient) -> bool:
        if not self._pinged:
            # Only once it is written: a ping that waits behind a large packet would count as unanswered.
            if not paho.want_write():
                paho.ping()
                self._pinged = True
            return False
        if not paho.is_ping_answered:
            return False
        for parcel in self._alone:
            self.suspicion.acquit(parcel)
        self.suspicion.acquit_what_was_written()
        self._alone, self._alone_refused = [], None
        return True

    def _settle_held(self, paho: PahoClient) -> None:
        while self._held and not paho.is_outstanding(self._held[0][0]):
            self.suspicion.acquit(self._held.popleft()[1])
            self._held_until = time.monotonic() + _HELD_SECONDS
        if time.monotonic() > self._held_until:
            self._held.clear()

    # --- connections ---

    def prepare(self, paho: PahoClient) -> None:
        """Before a connection: keep back what is to go alone, which paho would send all at once."""
        waiting = [(message.mid, _parcel(message)) for message in paho.outstanding]
        self._held = deque(item for item in waiting if self.suspicion.suspects(item[1]))
        paho.hold = bool(self._held)

    def begin(self, paho: PahoClient) -> None:
        """On a new connection: subscribe to everything again."""
        self._alone, self._alone_refused = [], None
        self._held_until = time.monotonic() + _HELD_SECONDS
        self.suspicion.begin()
        suspected = self.suspicion.suspects
        self._batches = deque(self._subscriptions.batches(lambda name: suspected(Parcel(name, is_filter=True))))
        if not self._held and not self.suspicion.is_alert:
            while self._batches:
                self._request(paho, self._batches.popleft())

    def lost(self, paho: PahoClient) -> Finding:
        """The broker has closed the connection, perhaps for a packet: whether for one, and if that is clear, which."""
        self._settle_held(paho)
        messages = paho.unacknowledged
        filters = [Parcel(name, is_filter=True) for name in self._subscriptions.unanswered]
        finding = self.suspicion.lost([*filters, *map(_parcel, messages)])
        if finding.guilty is not None:
            self._remove(paho, finding.guilty)
        return finding

    def _remove(self, paho: PahoClient, guilty: Parcel) -> None:
        error = _refusal(guilty)
        if guilty.is_filter:
            self._subscriptions.refuse(guilty.topic, error)
            return
        log.error("%s: not sent again", error.reason)
        on_refused = self._alone_refused
        for message in paho.unacknowledged:  # none but this one; none at all at QoS 0
            on_refused = self._by_packet_id.pop(message.mid, None)
            paho.drop(message.mid)
        _tell(on_refused, error)


def _parcel(message: MQTTMessage) -> Parcel:
    return Parcel(message.topic, len(message.topic) + len(message.payload))


def _refusal(parcel: Parcel) -> MessageRefusedError:
    return MessageRefusedError(parcel.topic, parcel.size, is_filter=parcel.is_filter)


def _tell(on_refused: OnRefused | None, error: MessageRefusedError) -> None:
    if on_refused is None:
        return
    try:
        on_refused(error)
    except Exception:
        log.exception("a link callback failed")
