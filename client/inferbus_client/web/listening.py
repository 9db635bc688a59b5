"""Where a program listens for HTTP."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Final

from inferbus_client.errors import SettingsError

_LOOPBACK: Final = "127.0.0.1"
_MOST: Final = 65535


def listening_at(text: object) -> str:
    """`PORT` or `HOST:PORT` as `HOST:PORT`; without a host it is the loopback address. For validators.

    Raises:
        ValueError: it is neither.
    """
    if (scheme := str(text).strip().lower().partition("://")[0]) in {"http", "https"}:
        raise ValueError(f"must be HOST:PORT, without {scheme}://")
    host, _, port = str(text).strip().rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= _MOST):
        raise ValueError("must be HOST:PORT, or a port on 127.0.0.1")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("must have an IPv6 address in brackets, as in [::1]:9100")
    return f"{host or _LOOPBACK}:{int(port)}"


def is_loopback(at: str) -> bool:
    """Whether nobody but this machine gets there."""
    host = at.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_socket(at: str) -> socket.socket:
    """A socket that listens there.

    Raises:
        SettingsError: nobody can.
    """
    host, _, port = at.rpartition(":")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise SettingsError(f"cannot listen for HTTP at {at}: {error.strerror or error}") from None
    return listener
