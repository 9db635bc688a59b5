"""Small messages without delay.

Nagle's algorithm holds a small packet back until the one before it was acknowledged, and the other side's delayed
acknowledgement comes up to 40 ms later. A reply of two packets (`accepted`, `done`) then takes 45 to 90 ms instead of
one: measured on loopback with Mosquitto, whose `set_tcp_nodelay` is off by default. So our own packets are not held
back, and what the broker sends is acknowledged at once, which releases its next packet.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, Final

#: Linux alone has it, and forgets it again, so it is set with every message.
_QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)


def send_at_once(connection: Any) -> None:
    """Switch Nagle's algorithm off for a connection's socket."""
    _set(connection, socket.TCP_NODELAY)


def acknowledge_at_once(connection: Any) -> None:
    """Acknowledge what has arrived on a connection's socket, where the system can be told to."""
    if _QUICK_ACK is not None:
        _set(connection, _QUICK_ACK)


def _set(connection: Any, option: int) -> None:
    # paho's WebSocket wrapper keeps the socket in an attribute; a connection that was just closed has none.
    wrapped = getattr(connection, "_socket", connection)
    if wrapped is not None:
        with suppress(OSError):
            wrapped.setsockopt(socket.IPPROTO_TCP, option, 1)
