"""A worker's life as a member of its group: in at the start, out at the end, in that order of steps that loses nothing.

In: the store is reached, and found to be written as this worker writes it; what an earlier life of this worker had goes
back to the group, and leases are kept. What the broker has kept for that earlier life is admitted as soon as somebody
of the group can answer it. When the model is there jobs are taken, and the broker deals out requests to us last.

Out: the broker deals us no more, and what it had dealt is decided on; nothing more is taken; what runs finishes, and
what does not in time goes back, to begin anew with another worker; a reply that could not leave, another one sends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from inferbus_client.contract.presence import GroupStats
from inferbus_client.units import format_duration
from inferbus_worker.flow.meter import Meter
from inferbus_worker.group.desk import Desk
from inferbus_worker.group.endings import GroupEndings
from inferbus_worker.group.figures import Figures
from inferbus_worker.group.holdings import Holdings
from inferbus_worker.group.keeper import Keeper
from inferbus_worker.group.taker import Taker
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.errors import StoreAwayError, StoreRefusedError
from inferbus_worker.state.redis.courier import Courier
from inferbus_worker.state.redis.group import RedisGroup
from inferbus_worker.state.redis.scripted import SCHEMA

log = logging.getLogger("inferbus.daemon")

_TRY_EVERY: Final = 0.1


@dataclass(frozen=True)
class Membership:
    """What a worker of a group has more than others. `desk` and `endings` stand where those of a single worker do."""

    settings: Settings
    courier: Courier
    group: RedisGroup
    figures: Figures
    meter: Meter
    holdings: Holdings
    desk: Desk
    endings: GroupEndings
    taker: Taker
    keeper: Keeper

    def start(self, stop: Callable[[], bool]) -> str | None:
        """Reach the store.

        Args:
            stop: asked all the time whether to break off.

        Returns:
            The mark that tells this group from another one of its name in another store; None where it was to stop.

        Raises:
            StoreError: it does not answer within `broker_timeout` seconds; or, at once, it refuses us, or is not one to
                keep state in. Later that is waited for: who runs already is not to end for what an operator does there.
        """
        self.courier.start()
        deadline = time.monotonic() + self.settings.broker_timeout
        has_said = False
        while not stop():
            try:
                schema = self.courier.ask_all(self.group.schema())[-1]
                if schema != SCHEMA:
                    raise StoreRefusedError(
                        f"the group {self.settings.group} keeps its state in another way ({schema}) than this worker "
                        f"({SCHEMA}): bring all of its workers to one version, or give this one a --group of its own"
                    )
                self.keeper.beat()
            except StoreAwayError as error:
                if (refusal := self.courier.refusal) is not None:
                    raise refusal.again() from None
                reason = self.courier.reason or error.reason
                if time.monotonic() > deadline:
                    raise StoreAwayError(reason) from None
                if not has_said:
                    most = format_duration(self.settings.broker_timeout)
                    log.warning("%s; it is tried again for %s", reason, most)
                    has_said = True
                time.sleep(_TRY_EVERY)
            else:
                self.keeper.start()
                return self.figures.latest.mark
        return None

    def is_served(self) -> bool:
        """Whether somebody of the group can answer now."""
        return any(slots for _, slots in self.figures.latest.models.values())

    def serve(self) -> None:
        """Take jobs from now on."""
        self.taker.start()

    def stop_taking(self, timeout: float) -> None:
        self.taker.stop(timeout)

    def hand_over(self) -> None:
        """Let the others run what has not ended; what has, may yet be said by ourselves. Does not wait."""
        self.keeper.give_back(self.holdings.unended())

    def stop(self, timeout: float) -> None:
        """Leave the store, in order, and within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self.keeper.stop(timeout / 2)
        self.keeper.give_back(self.holdings.all())
        self.courier.post(self.group.leave())
        self.courier.stop(max(0.0, deadline - time.monotonic()))

    def stats(self) -> GroupStats:
        """The group as this worker sees it."""
        latest = self.figures.latest
        return GroupStats(
            name=self.settings.group,
            workers=len(latest.workers),
            leases=latest.leases,
            queued=sum(latest.queued.values()),
            sessions=latest.sessions,
            reached=self.courier.is_here,
            reason=self.courier.reason,
        )
