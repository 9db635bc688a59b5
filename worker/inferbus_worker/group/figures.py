"""What this worker knows of its group: who is there, what they serve, how much waits, and the store's clock.

It is as old as the last beat, half a second: good enough to tell a requester how long it may take, and to be shown.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable
from typing import Final

from inferbus_worker.engines.slots import SlotTable
from inferbus_worker.state.redis.group import Group

log = logging.getLogger("inferbus.leases")

#: Seconds after which nobody waits any more for what he has asked of the store, or not for long.
_VALID_FOR: Final = 0.7
#: Seconds by which a clock has jumped, and no answer only been late.
_JUMP: Final = 2.0
#: Until the first beat nobody is there.
_NOBODY: Final = Group(now_ms=0, workers=[], queued={}, leases=0, sessions=0, models={}, mark="")


class Figures:
    """Any thread may use it. It counts as a `meter.Occupancy`: of a model, all slots of the group; else this worker's.

    Args:
        instance: this run of this worker.
        slots: this worker's.
        clock: a monotonic one.
    """

    def __init__(self, instance: str, slots: SlotTable, clock: Callable[[], float] = time.monotonic) -> None:
        self.instance = instance
        self._slots = slots
        self._clock = clock
        self._numbers = itertools.count()
        self.latest = _NOBODY
        #: By how much the store's clock is ahead of ours, in milliseconds; rather too little than too much.
        self._ahead = -math.inf
        #: Since when the store's clock has gone as ours does.
        self.steady_since = clock()

    def heard(self, group: Group) -> None:
        """The answer to a beat has just come."""
        now = self._clock()
        jumped = (group.now_ms - now * 1000 - self._ahead) / 1000
        self._ahead = group.now_ms - now * 1000
        if _JUMP < abs(jumped) < math.inf:
            self.steady_since = now
            log.warning("the store's clock has jumped by %+.0f s: its machine should keep time steadily", jumped)
        self.latest = group

    def not_after(self, seconds: float = _VALID_FOR) -> int:
        """Until when to do what is asked now, in milliseconds by the store's clock.

        A store that has stalled goes on with all that it was asked meanwhile, by those too who have hung up.
        """
        ahead = self._ahead if math.isfinite(self._ahead) else 0
        return int(self._clock() * 1000 + ahead + seconds * 1000)

    def new_token(self) -> str:
        """For the jobs that are taken next; no other taking has it, in whatever life of whichever worker."""
        return f"{self.instance}.{next(self._numbers)}"

    def serves(self, model: str) -> bool:
        """Whether a worker of the group has a slot for the model."""
        return self.latest.models.get(model, (0, 0))[1] > 0

    def expects(self, model: str) -> bool:
        """Whether a worker of the group serves the model, or will as soon as it has started."""
        return model in self.latest.models

    def queued(self, model: str) -> bool:
        """Whether anything waits for the model in the group."""
        # No project has a slash.
        return any(lane.partition("/")[2] == model for lane in self.latest.queued)

    @property
    def active(self) -> int:
        return self._slots.active

    @property
    def size(self) -> int:
        return self._slots.size

    def of(self, model: str) -> tuple[int, int]:
        """A model's requests under way in the group, and how many may be."""
        here = self._slots.of(model)
        return max(self.latest.models.get(model, here), here, key=lambda each: each[1])
