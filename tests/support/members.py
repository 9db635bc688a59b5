"""The bus of a worker of a group, without the worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from inferbus_client.mqtt.message import Incoming
from inferbus_worker.bus.connection import Bus
from inferbus_worker.replies.sender import Sender
from inferbus_worker.settings.worker import Settings
from support.waiting import until


class Named(Protocol):
    """A broker, at a URL."""

    @property
    def url(self) -> str: ...


class Member:
    """A worker's bus without the worker: what it is dealt is in `dealt`, and acknowledged unless `holds`."""

    def __init__(self, url: str, worker: str, **settings: Any) -> None:
        self.dealt: list[Incoming] = []
        self.drains = 0
        self.holds = False
        said = {"broker": url, "worker_id": worker, "projects": ["shop"], "alongside": True}
        group = {"state": "redis://127.0.0.1", "group": "fleet", "remote_drain": True}  # nobody asks this store
        self.bus = Bus(
            Settings.load(said | group | settings),
            sender=Sender(qos=0, max_bytes=1_000_000),
            receive=self._receive,
            asked=lambda: None,
            came_up=lambda: None,
            model="none",
            drain_asked=self._drain,
        )

    @property
    def texts(self) -> list[str]:
        return [message.payload.decode() for message in self.dealt]

    def start(self) -> None:
        self.bus.start(lambda: False)

    def cut_off(self) -> None:
        """Lose the connection, as a cable does."""
        paho = self.bus.link._connection.paho
        assert paho is not None
        connection = self.bus._instance.connection
        connection_to_cut: Any = paho.socket()
        connection_to_cut.shutdown(2)
        until(lambda: self.bus._instance.connection > connection and self.bus.link.is_up)

    def die(self) -> None:
        """End without a goodbye to the broker."""
        self.bus.link._end()
        paho = self.bus.link._connection.paho
        assert paho is not None
        paho.abandon()
        until(lambda: not self.bus.link.is_alive)

    def acknowledges_again(self) -> None:
        """What it holds, and what comes."""
        self.holds = False
        for message in list(self.dealt):
            self.bus.link.call(partial(self.bus.link.acknowledge, message.ack_id))

    def _receive(self, message: Incoming) -> None:
        self.dealt.append(message)
        if not self.holds:
            self.bus.link.acknowledge(message.ack_id)

    def _drain(self) -> None:
        self.drains += 1


@contextmanager
def member(place: Named, worker: str, *, joins: bool = True, **more: Any) -> Iterator[Member]:
    one = Member(place.url, worker, **more)
    try:
        one.start()
        if joins:
            one.bus.join()
        yield one
    finally:
        one.bus.close(2)
