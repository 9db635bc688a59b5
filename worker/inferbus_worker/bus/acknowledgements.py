"""Acknowledge after reply: a QoS 1 request stays with the broker until its terminal reply has been sent.

So a worker that dies answers nothing twice and loses nothing: the broker delivers again what was not acknowledged, to
the same worker id, marked as a duplicate. A message whose turn has crashed its worker `max_attempts` times is set
aside. Turns are counted on disk when they begin, and only those of redelivered messages: the everyday message costs no
write, so its first crash goes uncounted, and the count stops one short.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from inferbus_client.mqtt.message import Incoming
from inferbus_client.units import counted
from inferbus_worker.bus.attempts import Attempts
from inferbus_worker.replies.address import Owed, Receipt

log = logging.getLogger("inferbus.acknowledgements")


class _Ended(NamedTuple):
    mark: int
    arrived: bool


class Acknowledgements:
    """Which messages the broker still waits to see acknowledged. For the network thread, but for `turn_begins`.

    Args:
        acknowledge: tells the broker, by packet identifier.
        attempts: the counts of turns; None where nobody counts here.
        max_attempts: so many turns that ended their worker, and a message is poison.
        at_once: how many messages the broker hands out unacknowledged: so many acknowledgements may be lost together.
        keeps: whether messages are acknowledged by us at all, and not on receipt: else all of this is idle. Whoever
            counts attempts keeps.
    """

    def __init__(
        self,
        acknowledge: Callable[[int], None],
        *,
        attempts: Attempts | None,
        max_attempts: int,
        at_once: int = 1024,
        keeps: bool = False,
    ) -> None:
        self._keeps = keeps or attempts is not None
        self._acknowledge = acknowledge
        self._at_once = at_once
        self._attempts = attempts
        self._max_attempts = max_attempts
        # By packet identifier. A broker that has forgotten us gives an identifier away again while the message that had
        # it before is still under way: then that one must not be acknowledged in the place of the new one.
        self._open: dict[int, Receipt] = {}
        self._ended: OrderedDict[int, _Ended] = OrderedDict()
        self._connection = 0

    def __len__(self) -> int:
        return len(self._open)

    def needs_nothing(self, message: Incoming) -> bool:
        """Whether this is a redelivery, after a reconnect, of what this process works on or is done with for sure.

        Then only our acknowledgement was lost, and is said again.
        """
        if not message.dup:
            return False
        if message.ack_id in self._open:
            return True
        is_done = self._ended.get(message.ack_id) == _Ended(_mark(message), arrived=True)
        if is_done:
            self._acknowledge(message.ack_id)
        return is_done

    def was_handled(self, message: Incoming) -> bool:
        """Whether this is a redelivery of what this process has handled, but whose reply may be lost."""
        return message.dup and self._ended.get(message.ack_id) == _Ended(_mark(message), arrived=False)

    def note(self, message: Incoming) -> bool:
        """Note a new message; False where it is poison, and has been set aside."""
        if not self._keeps or message.qos != 1:  # QoS 2 the link settles by itself
            return True
        key = delivery_key(message) if message.dup else None
        receipt = self._open[message.ack_id] = Receipt(message.ack_id, key, _mark(message), self._connection)
        if receipt.key is None or self._attempts is None or self._attempts.of(receipt.key) < self._max_attempts - 1:
            return True
        log.error("set aside a message on %r: its turn ended %s", message.topic, counted(self._max_attempts, "worker"))
        self._attempts.set_aside(message, receipt.key)
        return False

    def receipt_of(self, message: Incoming) -> Receipt | None:
        """The receipt of a message that has just begun; None where the broker waits for nothing."""
        return self._open.get(message.ack_id) if message.qos == 1 else None

    def turn_begins(self, receipt: Receipt | Owed | None) -> None:
        """A worker thread takes the request; from any thread."""
        if self._attempts is not None and isinstance(receipt, Receipt) and receipt.key is not None:
            self._attempts.count(receipt.key)

    def answered(self, receipt: Receipt | Owed | None, *, arrived: bool = True) -> None:
        """The terminal reply has arrived, or been sent as far as we know; or there is none."""
        if not isinstance(receipt, Receipt) or self._open.get(receipt.ack_id) is not receipt:
            return
        del self._open[receipt.ack_id]
        self._ended[receipt.ack_id] = _Ended(receipt.mark, arrived)
        self._ended.move_to_end(receipt.ack_id)
        if len(self._ended) > self._at_once:
            self._ended.popitem(last=False)
        if self._attempts is not None and receipt.key is not None:
            self._attempts.forget(receipt.key)
        self._acknowledge(receipt.ack_id)

    def came_up(self, *, remembered: bool) -> None:
        """A new connection. To a broker that has forgotten us nothing is acknowledged that it sent before."""
        self._connection += 1
        if not remembered:
            self._open.clear()
            self._ended.clear()

    def close(self) -> None:
        if self._attempts is not None:
            self._attempts.close()


def delivery_key(message: Incoming) -> str:
    """The same for every delivery of a message: a broker keeps its identifier until it is acknowledged.

    The payload alone would not do, since others may ask just the same; nor the identifier, which is given away again.
    """
    digest = hashlib.sha256(message.topic.encode() + b"\0" + message.payload)
    return f"{message.ack_id}-{digest.hexdigest()}"


def _mark(message: Incoming) -> int:
    return hash((message.topic, message.payload))
