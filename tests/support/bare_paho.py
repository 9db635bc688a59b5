"""What the tests' bare paho clients have in common."""

from __future__ import annotations

from contextlib import suppress

from paho.mqtt.client import Client


def leave(client: Client) -> None:
    """Disconnect, and end the client's thread."""
    client.disconnect()
    # The thread may end, and be forgotten, between paho's look at it and its wait for it.
    with suppress(AttributeError):
        client.loop_stop()
    # Else its own pair of sockets is closed when the client is collected, or an instant after they are found open.
    client._reset_sockets(sockpair_only=True)
