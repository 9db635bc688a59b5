"""Addresses where no broker answers, each in a way of its own. Context managers that yield the URL."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from support.mosquitto import HOST, free_port


@contextmanager
def nobody() -> Iterator[str]:
    """Whoever connects is refused at once."""
    yield f"mqtt://{HOST}:{free_port()}"


@contextmanager
def black_hole() -> Iterator[str]:
    """What is sent there is dropped, as behind a firewall: the system itself waits for a connection."""
    with socket.socket() as server, ExitStack() as waiting:
        server.bind((HOST, 0))
        server.listen(0)
        for _ in range(4):
            connection = waiting.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(server.getsockname())
        yield f"mqtt://{HOST}:{server.getsockname()[1]}"


@contextmanager
def mute(scheme: str = "mqtt") -> Iterator[str]:
    """Takes connections and says nothing."""
    with socket.create_server((HOST, 0)) as server:
        yield f"{scheme}://{HOST}:{server.getsockname()[1]}"
