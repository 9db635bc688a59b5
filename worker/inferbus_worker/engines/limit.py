"""How many requests a slot may have at once: a fixed number, or one that finds itself.

The time of a whole answer says nothing of how full a backend is, since answers are of any length. What does say it: its
refusals, what is left of its rate-limit windows, and the time to the first token, which holds while a batch has room
and grows as soon as requests wait for one.

It begins at four, not at the backend's natural number, which may be 256: the best time to the first token has to be
learnt while the backend is not crowded, else a crowded one's is taken for the best there is; and a server that others
use as well should not meet 256 at once. Four is what every backend that batches at all takes well. While nothing speaks
against it the number doubles with each window: 256 is reached in half a minute of load. After the first step down it
grows by an eighth instead, at least by one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Final, Protocol

log = logging.getLogger("inferbus.slots")

_START: Final = 4
#: Seconds that are judged together, at least. After a step down, what was begun before still fails for a while.
_WINDOW: Final = 5.0
#: A window is judged with so many answers, or as many as there may be at once: fewer would be chance.
_ENOUGH: Final = 10
_SAMPLES: Final = 512
#: First tokens of up to so many times the best hold; over so many times it, the backend is crowded.
_HOLDS: Final = 1.5
_CROWDED: Final = 2.0
#: In seconds. Below it, twice as long is a matter of threads, not of load.
_LEAST_FIRST_TOKEN: Final = 0.01
#: The share of the way to what is measured now that the best goes in a window: a day's best is not the next day's.
#: So it does only while few or not all run that may. Else it would follow the crowd, and let in more and more of it.
_FORGETTING: Final = 0.02
_FORGETTING_WITH_FEW: Final = 0.25
#: So many windows between the two bounds, and it is time to find out whether that is the crowd or the times.
_PATIENCE: Final = 60
_LOW_HEADROOM: Final = 0.2
#: The longest that a step down waits for the first tokens of before it.
_LONGEST_REST: Final = 60.0


class Limit(Protocol):
    """What a slot asks, and tells. Any thread may use it; it never waits."""

    @property
    def value(self) -> int:
        """How many requests may run at once."""
        ...

    def answered(self, first_token_seconds: float | None, active: int) -> None:
        """A request was answered.

        Args:
            first_token_seconds: from when it was sent to the backend; None where that is not known.
            active: how many ran at once as it ended, itself included.
        """
        ...

    def refused(self, fault: str) -> None:
        """The backend has enough to do: 429, 503 or 529."""
        ...

    def headroom(self, share: float | None) -> None:
        """What is left of the least of the backend's rate-limit windows, from 0 to 1; None: it does not tell."""
        ...


class FixedLimit:
    """See `Limit`. It stays as it is."""

    def __init__(self, value: int) -> None:
        self.value = value

    def answered(self, first_token_seconds: float | None, active: int) -> None: ...

    def refused(self, fault: str) -> None: ...

    def headroom(self, share: float | None) -> None: ...


class AdaptiveLimit:
    """See `Limit`. It finds itself between 1 and `natural`; each step is one line in the log.

    Args:
        name: the slot's, for the log.
        natural: how many the backend may have at the most.
        clock: monotonic seconds.
    """

    def __init__(self, name: str, natural: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._natural = natural
        self._clock = clock
        self._lock = threading.Lock()
        self._value = min(_START, natural)
        self._has_met_a_bound = False
        self._best: float | None = None
        self._headroom: float | None = None
        self._times: deque[float] = deque(maxlen=_SAMPLES)
        self._answers = 0
        self._was_reached = False
        #: Windows that have spoken neither for more nor for less, one after the other.
        self._undecided = 0
        self._began = clock()

    @property
    def value(self) -> int:
        return self._value

    def answered(self, first_token_seconds: float | None, active: int) -> None:
        with self._lock:
            now = self._clock()
            if now < self._began:
                return  # it was begun under the number of before
            self._answers += 1
            self._was_reached |= active >= self._value
            if first_token_seconds is not None:
                self._times.append(max(first_token_seconds, _LEAST_FIRST_TOKEN))
            if now - self._began >= _WINDOW and self._answers >= min(self._value, _ENOUGH):
                self._judge()

    def refused(self, fault: str) -> None:
        with self._lock:
            self._step_down(self._value // 2, f"the backend refused ({fault})")

    def headroom(self, share: float | None) -> None:
        with self._lock:
            self._headroom = share
            if self._is_near_its_rate and share is not None:
                self._step_down(self._value * 3 // 4, f"{share:.0%} of the backend's rate limit is left")

    @property
    def _is_near_its_rate(self) -> bool:
        return self._headroom is not None and self._headroom < _LOW_HEADROOM

    def _judge(self) -> None:
        """A window has ended."""
        reached = self._was_reached
        if not self._times:
            self._begin_window(self._clock())
            if reached:
                self._step_up(f"nothing was refused with {self._value} at once")
            return
        takes = median(self._times)
        best = takes if self._best is None else min(self._best, takes)
        self._best = self._forget(best, takes)
        self._begin_window(self._clock())
        compared = f"the first token takes {_ms(takes)}, at best {_ms(best)}"
        self._undecided += 1
        if takes > best * _CROWDED:
            self._step_down(self._value * 3 // 4, compared, rest=takes)
        elif takes <= best * _HOLDS:
            self._undecided = 0
            if reached:
                self._step_up(f"the first token holds at {_ms(takes)} with {self._value} at once")
        elif self._undecided >= _PATIENCE:
            self._step_down(self._value // 2, f"{compared}: the best is measured anew with fewer")

    def _forget(self, best: float, takes: float) -> float:
        if self._value <= _START:
            return best + (takes - best) * _FORGETTING_WITH_FEW
        return best if self._was_reached else best + (takes - best) * _FORGETTING

    def _step_up(self, why: str) -> None:
        if self._is_near_its_rate:
            return
        more = max(self._value // 8, 1) if self._has_met_a_bound else self._value
        self._become(min(self._value + more, self._natural), why)

    def _step_down(self, value: int, why: str, *, rest: float = 0.0) -> None:
        """Only one in a window: what was begun under the old number still fails for a while."""
        now = self._clock()
        if now < self._began:
            return
        self._has_met_a_bound = True
        self._undecided = 0
        self._become(max(value, 1), why)
        self._begin_window(now + min(max(rest, _WINDOW), _LONGEST_REST))

    def _begin_window(self, at: float) -> None:
        self._began = at
        self._answers = 0
        self._was_reached = False
        self._times.clear()

    def _become(self, value: int, why: str) -> None:
        if value != self._value:
            log.info("%s: limit %d -> %d: %s", self._name, self._value, value, why)
        self._value = value


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
