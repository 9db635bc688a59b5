"""Token budgets in this process: a sliding window of charges for each session."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from cachetools import TTLCache

from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.protocols import Levels

#: Charges kept one by one in a session's window; with more, the two oldest become one that leaves with the later.
_CHARGES: Final = 64


class _Charge:
    __slots__ = ("_lock", "at", "tokens")

    def __init__(self, at: float, tokens: int, lock: threading.Lock) -> None:
        self.at = at
        self.tokens = tokens
        self._lock = lock

    def settle(self, tokens: int) -> None:
        """See `Charge.settle`."""
        with self._lock:
            self.tokens = tokens


class MemoryBudgets:
    """At most `budget.limit` tokens per session in any `budget.window` seconds. Any thread may call.

    Args:
        budget: how many tokens in which window.
        max_keys: sessions that are counted; the least recently charged is forgotten first.
        clock: a monotonic one.
    """

    def __init__(
        self, budget: RateLimit, *, clock: Callable[[], float] = time.monotonic, max_keys: int = 100_000
    ) -> None:
        self._limit, self._window = budget.limit, budget.window
        self._clock = clock
        self._charges: TTLCache[SessionKey, list[_Charge]] = TTLCache(max_keys, budget.window, timer=clock)
        self._lock = threading.Lock()

    def charge(self, key: SessionKey, tokens: int) -> _Charge | float:
        """See `Budgets.charge`."""
        now = self._clock()
        with self._lock:
            charges = [charge for charge in self._charges.get(key, ()) if now - charge.at < self._window]
            excess = tokens + sum(charge.tokens for charge in charges) - self._limit
            for charge in charges:
                if excess <= 0:
                    break
                excess -= charge.tokens
                if excess <= 0:
                    return charge.at + self._window - now
            if len(charges) >= _CHARGES:
                charges[1].tokens += charges.pop(0).tokens
            made = _Charge(now, tokens, self._lock)
            charges.append(made)
            self._charges[key] = charges
            return made

    def levels(self) -> Levels:
        with self._lock:  # to be counted, the table drops what is too old
            return {"tokenBudgetSessions": (len(self._charges), int(self._charges.maxsize))}
