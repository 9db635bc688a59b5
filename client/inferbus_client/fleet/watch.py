"""Watches every worker on the bus: presence, the stats that come, and those that are asked for."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self

from inferbus_client.contract import topics
from inferbus_client.exchange.announced import Announced, WorkerView
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Incoming
from inferbus_client.settings.client import ClientSettings

#: Workers that are remembered by whoever only looks.
_MAX_WORKERS: Final = 10_000
#: Retained presence comes with the subscription; this is for a slow link.
_GATHER: Final = 1.0


class Watch(Announced):
    """Collects announcements while the `with` lasts, over a connection of its own.

    Args:
        settings: how to reach the broker.
        client_id: the MQTT client id.
        worker: this one alone; else every worker on the bus.

    Raises:
        BrokerError: on entering, as `Link.connect` says.
    """

    def __init__(self, settings: ClientSettings, client_id: str, worker: str | None = None) -> None:
        super().__init__(_MAX_WORKERS)
        self._filters = {topics.presence(worker or "+"): 1, topics.stats(worker or "+"): 0}
        self._timeout = settings.connect_timeout
        self._link = Link(settings.link_options(client_id), on_message=self._hear)

    def __enter__(self) -> Self:
        try:
            self._link.connect(self._timeout)
            self._link.subscribe(self._filters)
        except BaseException:
            self._link.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._link.close()

    @property
    def is_up(self) -> bool:
        """Whether the connection stands; what is known may be old while it does not."""
        return self._link.is_up

    def _hear(self, message: Incoming) -> None:
        self.received(message)

    def gather(self) -> None:
        """Wait for those who have said something already; in vain, for a second, where nobody has."""
        self.wait_for(bool, _GATHER)
        time.sleep(_GATHER / 4)  # one is here; others' retained messages follow at once

    def ask(self) -> float:
        """Ask every worker that may live for its stats.

        Returns:
            When, for `answered`.
        """
        asked = time.monotonic()
        for topic in self.questions():
            self._link.publish(topic, b"")
        return asked

    def send(self, topic: str) -> None:
        """Publish an empty message, which reaches who listens there now."""
        self._link.publish(topic, b"", qos=1)

    def clear(self, worker: str, timeout: float) -> bool:
        """Remove a worker's retained presence from the broker.

        Returns:
            Whether the broker has; False where it has not said so within `timeout` seconds.
        """
        self._link.publish(topics.presence(worker), b"", qos=1, retain=True)
        return self.wait_for(lambda workers: worker not in workers, timeout)


__all__ = ["Watch", "WorkerView"]
