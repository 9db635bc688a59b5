"""A message from the bus on its way to an answer."""

from __future__ import annotations

from typing import NamedTuple

from inferbus_client.contract.topics import Address
from inferbus_client.mqtt.message import Incoming
from inferbus_worker.replies.address import Receipt


class Arrival(NamedTuple):
    """One message, with what the network thread knows of it.

    Attributes:
        message: as it came.
        address: what its topic says.
        receipt: what it takes to acknowledge it; None where the broker waits for nothing.
        is_sound: False: its turn has ended its worker again and again, and it is not to be run.
        again: it comes again, and has been handled before.
        since: when it came, if that was before now: what the requester allows it counts from there.
    """

    message: Incoming
    address: Address
    receipt: Receipt | None = None
    is_sound: bool = True
    again: bool = False
    since: float | None = None
