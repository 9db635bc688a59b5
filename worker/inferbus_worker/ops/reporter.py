"""What the worker tells of itself: the interval's line and message, stats for whoever asks, a queue that grows long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sized
from typing import Final

from inferbus_client.contract.presence import MAX_NAMES, GroupStats, Level, Stats
from inferbus_worker.engines.registry import Registry
from inferbus_worker.flow.meter import Meter
from inferbus_worker.flow.queue import RequestQueue
from inferbus_worker.replies.sender import Sender
from inferbus_worker.seldom import Seldom
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.protocols import Levels

log = logging.getLogger("inferbus.reporter")

_QUEUE_WARNING: Final = 0.7
#: Seconds between two answers to those who ask for the stats, however many ask.
_ANSWER_EVERY: Final = 1.0


class Reporter:
    """Looks at the rooms, and says what it sees. For the main thread, but for `asked` and `reading`.

    Args:
        settings: the worker's: the interval, and the bounds.
        meter: counts and latencies.
        registry: the models.
        queue: what waits.
        in_flight: what waits or runs.
        sessions: conversations.
        sender: the sender.
        levels: everything that is bounded.
        unreadable: how many messages could not be read.
        publish: puts the stats on the bus.
        group: the figures of the worker's group; None where it is in none.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        meter: Meter,
        registry: Registry,
        queue: RequestQueue,
        in_flight: Sized,
        sessions: Sized,
        sender: Sender,
        levels: Callable[[], Levels],
        unreadable: Callable[[], int],
        publish: Callable[[Stats], None],
        group: Callable[[], GroupStats] | None = None,
    ) -> None:
        self._settings = settings
        self._meter = meter
        self._registry = registry
        self._queue = queue
        self._in_flight = in_flight
        self._sessions = sessions
        self._sender = sender
        self._levels = levels
        self._unreadable = unreadable
        self._publish = publish
        self._group = group
        self._queue_was_long = False
        self._seldom = Seldom(log)
        self._next_stats = time.monotonic() + settings.stats_interval
        self._is_asked = False
        self._next_answer = 0.0

    def asked(self) -> None:
        """Somebody on the bus wants the stats. From any thread."""
        self._is_asked = True

    def answer(self) -> None:
        """Publish the stats if somebody has asked for them; called all the time, also while nothing is served."""
        if self._is_asked and time.monotonic() >= self._next_answer:
            self._publish_stats()

    def look(self) -> None:
        """Say what there is to say now; called all the time."""
        self._watch_queue()
        self.answer()
        now = time.monotonic()
        if self._settings.stats_interval and now >= self._next_stats:
            self._next_stats = now + self._settings.stats_interval
            self._tell_stats()

    def _watch_queue(self) -> None:
        is_long = len(self._queue) > _QUEUE_WARNING * self._queue.size
        if is_long and not self._queue_was_long:
            self._seldom.warning("the queue is more than 70 %% full: %d of %d", len(self._queue), self._queue.size)
        self._queue_was_long = is_long

    def _tell_stats(self) -> None:
        """One line an interval, quiet while nothing happens."""
        quiet = self._meter.quiet and not len(self._queue) and not len(self._in_flight)
        self._meter.end_interval()
        self._registry.end_interval()
        said = self._publish_stats().model_dump(exclude={"v", "worker", "histograms", "models", "queued_by_project"})
        log.log(logging.DEBUG if quiet else logging.INFO, "stats", extra=said)

    def _publish_stats(self) -> Stats:
        """These are an answer too, to all who have asked so far."""
        self._is_asked = False
        self._next_answer = time.monotonic() + _ANSWER_EVERY
        stats = self.reading()
        self._publish(stats)
        return stats

    def reading(self) -> Stats:
        """The figures as they stand. From any thread."""
        stats = self._meter.reading(
            self._settings.worker_id,
            queued=len(self._queue),
            queue_size=self._queue.size,
            queued_by_project=self._queue.queued_by_project(MAX_NAMES),
            sessions=len(self._sessions),
            levels={name: Level(now=now, bound=bound) for name, (now, bound) in self._levels().items()},
            models=self._registry.readings(self._queue.queued),
            replies_dropped=self._sender.dropped,
            unreadable_messages=self._unreadable(),
        )
        return stats if self._group is None else stats.model_copy(update={"group": self._group()})
