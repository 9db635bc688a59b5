"""Cancels in a group. Every worker hears each, marks in the store what it means, and ends what it has itself.

What waits, whoever hears of it first takes out and ends. What runs is marked there, which lets its session go, and its
worker, who hears the same cancel, stops it; so does one that was just about to begin.
"""

from __future__ import annotations

import logging

from inferbus_client.contract.wire import Failure
from inferbus_worker.flow.in_flight import InFlight
from inferbus_worker.group.endings import GroupEndings
from inferbus_worker.group.figures import Figures
from inferbus_worker.group.holdings import Holdings
from inferbus_worker.group.reopening import Reopening
from inferbus_worker.seldom import Seldom
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.redis.calls import Call
from inferbus_worker.state.redis.group import Cancelled, RedisGroup
from inferbus_worker.state.redis.names import session_name

log = logging.getLogger("inferbus.cancels")


class Cancels:
    """For the intake's thread.

    Args:
        group: knows the store's words.
        in_flight: what this worker has.
        holdings: the same, by the names of the jobs.
        reopening: makes a job of what was taken out of the queue.
        endings: ends it.
        figures: make tokens.
    """

    def __init__(
        self,
        group: RedisGroup,
        in_flight: InFlight,
        holdings: Holdings,
        reopening: Reopening,
        endings: GroupEndings,
        figures: Figures,
    ) -> None:
        self._group = group
        self._in_flight = in_flight
        self._holdings = holdings
        self._reopening = reopening
        self._endings = endings
        self._figures = figures
        self._seldom = Seldom(log)

    def call(self, key: SessionKey, wanted: str | None) -> Call[Cancelled]:
        """What to ask the store.

        Args:
            key: the session, as its topic names it.
            wanted: the id of the request that is meant; None: all of the session's.
        """
        return self._group.cancel(session_name(key), wanted, self._figures.new_token())

    def found(self, cancelled: Cancelled) -> None:
        """End what the store has found."""
        for taken in cancelled.mine:
            self._endings.end(taken, Failure("cancelled"))
        for name in cancelled.running:
            job = self._holdings.job(name)
            if job is None:
                self._reopening.cancelled(name)
            else:
                job.mark(Failure("cancelled"))

    def here(self, key: SessionKey, wanted: str | None) -> None:
        """End what this worker has itself, without the store."""
        for job in self._in_flight.of(key):
            if wanted is None or wanted == job.replies.address.request_id:
                job.mark(Failure("cancelled"))

    def ignored(self, failure: Failure) -> None:
        self._seldom.warning("ignored a cancel: %s", failure.message)
