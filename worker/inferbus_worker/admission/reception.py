"""The front desk: what the network thread does with a message from the bus before it takes its turn at the intake.

Everything here is quick and belongs to that thread: whether the broker still waits for an acknowledgement, whether the
message is for us, and whether it is kept until the model is there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container
from typing import Final, NamedTuple

from inferbus_client.contract import topics
from inferbus_client.contract.topics import Address, Kind
from inferbus_client.mqtt.message import Incoming
from inferbus_worker.admission.arrival import Arrival
from inferbus_worker.admission.intake import Intake
from inferbus_worker.admission.verbs import MAX_CONTROL_BYTES
from inferbus_worker.bus.acknowledgements import Acknowledgements

log = logging.getLogger("inferbus.reception")

#: Of cancels without an acknowledgement.
_MAX_HELD: Final = 1024


class _Held(NamedTuple):
    """A message that waits for the model, and since when on the worker's monotonic clock."""

    message: Incoming
    since: float


class Reception:
    """Takes every message from the bus. For the network thread.

    Args:
        projects: that are served.
        intake: where messages take their turn.
        acknowledgements: of requests at QoS 1.
        users: whether the identity is in the topic.
        max_held: QoS 1 messages that `hold` keeps; what comes beyond hears at once that there is no model yet.
        max_held_bytes: of each; a larger one is refused in any case, and need not wait for that.
        max_conversation_bytes: the same for one that may bring its whole conversation along.
        clock: a monotonic one.
    """

    def __init__(
        self,
        *,
        projects: Container[str],
        intake: Intake,
        acknowledgements: Acknowledgements,
        users: bool = False,
        max_held: int = _MAX_HELD,
        max_held_bytes: int = 65536,
        max_conversation_bytes: int = 65536,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._projects = projects
        self._intake = intake
        self._acknowledgements = acknowledgements
        self._users = users
        self._max_held = max_held
        self._max_held_bytes = max_held_bytes
        self._max_conversation_bytes = max_conversation_bytes
        self._clock = clock
        # In their order, by packet identifier; what has none is numbered downwards from 0.
        self._held: dict[int, _Held] | None = None
        self._numbered = 0

    def receive(self, message: Incoming) -> None:
        """One message from the bus. Retained ones are old news, and dropped."""
        if self._held is None or not self._holds(message, self._held):
            self._take_in(message, since=None)

    def _take_in(self, message: Incoming, since: float | None) -> None:
        acknowledgements = self._acknowledgements
        if acknowledgements.needs_nothing(message):
            return
        again = acknowledgements.was_handled(message)
        is_sound = acknowledgements.note(message)
        receipt = acknowledgements.receipt_of(message)
        address = topics.parse(message.topic)
        if message.retain or address is None or not self._serves(address):
            acknowledgements.answered(receipt, arrived=False)
            return
        self._intake.put(Arrival(message, address, receipt, is_sound=is_sound, again=again, since=since))

    def hold(self) -> None:
        """Keep QoS 1 messages instead of refusing them: what is acknowledged after its reply can wait for the model."""
        self._held = {}

    def release(self) -> None:
        """Take in what was held, in the order in which it came."""
        held, self._held = self._held, None
        for message, since in (held or {}).values():
            try:
                self._take_in(message, since)
            except Exception:
                log.exception("a message could not be handled")

    def came_up(self, *, remembered: bool) -> None:
        """A new connection; `remembered` says whether the broker still knows what it sent on the one before."""
        self._acknowledgements.came_up(remembered=remembered)
        if self._held is not None and not remembered:
            old = [each._replace(message=each.message._replace(qos=0, ack_id=0)) for each in self._held.values()]
            self._held = {-number: each for number, each in enumerate(old)}
            self._numbered = len(old)

    def _holds(self, message: Incoming, held: dict[int, _Held]) -> bool:
        """Keep the message, if it is to be kept. One that comes again, after a reconnect, has its place already."""
        if message.qos:
            return message.ack_id in held or self._keeps(message, message.ack_id, held, self._largest(message))
        # A cancel must not overtake the request that it means.
        address = topics.parse(message.topic)
        if address is None or address.kind is not Kind.CANCEL:
            return False
        if self._numbered < _MAX_HELD and self._keeps(message, -self._numbered, held, MAX_CONTROL_BYTES):
            self._numbered += 1
        return True

    def _largest(self, message: Incoming) -> int:
        """How large it may be, by its look: to parse it is for admission."""
        if len(message.payload) > self._max_held_bytes and b'"messages"' in message.payload:
            return self._max_conversation_bytes
        return self._max_held_bytes

    def _keeps(self, message: Incoming, number: int, held: dict[int, _Held], largest: int) -> bool:
        if message.cut or len(message.payload) > largest or len(held) >= self._max_held + _MAX_HELD:
            return False
        held[number] = _Held(message, self._clock())
        return True

    def _serves(self, address: Address) -> bool:
        """Where identity is in the topic, only there: a topic without one would be a way around it."""
        if address.project not in self._projects or (address.user is not None) != self._users:
            return False
        return address.user is None or topics.is_user(address.user)
