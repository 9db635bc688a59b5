"""Watches every worker on the bus, from presence and stats alone: nothing is asked of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self

from inferbus_client import topics
from inferbus_client.client_settings import ClientSettings
from inferbus_client.link import Link
from inferbus_client.link_options import Incoming
from inferbus_client.presence import Presence, Stats, decode_announcement

#: Workers that are remembered; on a bus where anyone may announce one, a limit there must be.
_MAX_WORKERS: Final = 10_000


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What is known of one worker.

    Attributes:
        presence: what it last said of its state.
        stats: its last figures; None until the first come.
        stats_at: when they came, on the monotonic clock.
    """

    presence: Presence | None = None
    stats: Stats | None = None
    stats_at: float | None = None


class Watch:
    """Collects announcements while the `with` lasts.

    Args:
        settings: how to reach the broker.
        client_id: the MQTT client id.
        worker: this one alone; else every worker on the bus.

    Raises:
        BrokerError: on entering, as `Link.connect` says.
    """

    def __init__(
        self,
        settings: ClientSettings,
        client_id: str,
        worker: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._filters = {topics.presence(worker or "+"): 1, topics.stats(worker or "+"): 0}
        self._timeout = settings.connect_timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._workers: dict[str, WorkerView] = {}
        self._link = Link(settings.link_options(client_id), on_message=self._received)

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

    @property
    def workers(self) -> dict[str, WorkerView]:
        """Every worker heard of so far, by id."""
        with self._lock:
            return dict(sorted(self._workers.items()))

    def wait_for(self, condition: Callable[[dict[str, WorkerView]], bool], timeout: float) -> bool:
        """Wait until `condition` holds of what is known, at most `timeout` seconds; returns whether it does."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self._workers), timeout)

    def _received(self, message: Incoming) -> None:
        worker, kind = message.topic.split("/")[2:4]
        with self._changed:
            if worker not in self._workers and len(self._workers) >= _MAX_WORKERS:
                return
            before = self._workers.get(worker, WorkerView())
            after = self._updated(before, kind, message.payload)
            if after is None:
                self._workers.pop(worker, None)
            else:
                self._workers[worker] = after
            self._changed.notify_all()

    def _updated(self, view: WorkerView, kind: str, payload: bytes) -> WorkerView | None:
        if kind == "stats":
            stats = decode_announcement(Stats, payload)
            return view if stats is None else replace(view, stats=stats, stats_at=self._clock())
        # An empty retained message clears the topic: an operator has removed a worker that will not come back.
        if not payload:
            return None
        presence = decode_announcement(Presence, payload)
        return view if presence is None else replace(view, presence=presence)
