"""Watches every worker on the bus: presence, the stats that come, and those that are asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence, Stats, decode_announcement
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Incoming
from inferbus_client.settings.client import ClientSettings

#: Workers that are remembered; on a bus where anyone may announce one, a limit there must be.
_MAX_WORKERS: Final = 10_000
#: Readings that are kept of each, and for how many seconds: what lies between the oldest and the latest is "now".
_READINGS: Final = 10
_NOW: Final = 15.0
#: Retained presence comes with the subscription; this is for a slow link.
_GATHER: Final = 1.0


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What is known of one worker.

    Attributes:
        presence: what it last said of its state.
        readings: its figures of the last seconds, oldest first; at least the latest, once there has been one.
        stats_at: when that came, on the monotonic clock.
    """

    presence: Presence | None = None
    readings: tuple[Stats, ...] = ()
    stats_at: float | None = None

    @property
    def stats(self) -> Stats | None:
        """Its latest figures; None until the first come."""
        return self.readings[-1] if self.readings else None

    @property
    def is_gone(self) -> bool:
        """Whether it has said so itself, or its Last Will has."""
        return self.presence is not None and self.presence.state == "offline"

    def has_answered(self, asked: float) -> bool:
        """Whether figures have come since `Watch.ask` asked for them."""
        return self.stats_at is not None and self.stats_at >= asked


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

    def gather(self) -> None:
        """Wait for those who have said something already; in vain, for a second, where nobody has."""
        self.wait_for(bool, _GATHER)
        time.sleep(_GATHER / 4)  # one is here; others' retained messages follow at once

    def ask(self) -> float:
        """Ask every worker that may live for its stats.

        Returns:
            When, for `answered`.
        """
        asked = self._clock()
        for worker, view in self.workers.items():
            if not view.is_gone and topics.is_worker(worker):
                self._link.publish(topics.stats_request(worker), b"")
        return asked

    def answered(self, asked: float, timeout: float, names: Collection[str] | None = None) -> bool:
        """Wait for the answers to what was asked, of these workers or of all; whether they have come."""

        def all_have(workers: dict[str, WorkerView]) -> bool:
            views = workers.values() if names is None else [workers[name] for name in names if name in workers]
            return all(view.is_gone or view.has_answered(asked) for view in views)

        return self.wait_for(all_have, timeout)

    def clear(self, worker: str, timeout: float) -> bool:
        """Remove a worker's retained presence from the broker.

        Returns:
            Whether the broker has; False where it has not said so within `timeout` seconds.
        """
        self._link.publish(topics.presence(worker), b"", qos=1, retain=True)
        return self.wait_for(lambda workers: worker not in workers, timeout)

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
            return view if stats is None else replace(view, readings=_with(view, stats), stats_at=self._clock())
        # An empty retained message clears the topic: an operator has removed a worker that will not come back.
        if not payload:
            return None
        presence = decode_announcement(Presence, payload)
        return view if presence is None else replace(view, presence=presence)


def _with(view: WorkerView, stats: Stats) -> tuple[Stats, ...]:
    """The readings with one more; those of an earlier run of the worker, and old ones, go."""
    kept = [before for before in view.readings if stats.uptime_s - _NOW <= before.uptime_s < stats.uptime_s]
    return (*kept[-_READINGS + 1 :], stats)
