"""The token budget: how many tokens one session may use in a sliding window.

A request is charged at admission with the most that it can take, its prompt and what may be generated. When it has
ended well, what it really took stands in that place; when it ended before the engine saw it, nothing does. One that
failed in the engine keeps its charge: what it took is not known, and a cancel shortly before the end is no way around.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import TTLCache

from inferbus_client.contract.wire import Failure
from inferbus_client.units import format_duration
from inferbus_worker.chat import Usage
from inferbus_worker.flow.job import PASSED_IN_QUEUE, Answer, Job
from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.state.memory.sessions import SessionKey

log = logging.getLogger("inferbus.token_budget")

# Charges kept one by one in a session's window; with more, the two oldest become one that leaves with the later.
_CHARGES = 64


@dataclass(slots=True)
class _Charge:
    at: float
    tokens: int


class TokenBudget:
    """At most `budget.limit` tokens per session in any `budget.window` seconds. Any thread may call.

    Args:
        budget: how many tokens in which window.
        most: the longest prompt and the longest answer that a job can come to.
        max_keys: sessions that are counted; the least recently charged is forgotten first.
    """

    def __init__(
        self,
        budget: RateLimit,
        most: Callable[[Job], Usage],
        *,
        clock: Callable[[], float] = time.monotonic,
        max_keys: int = 100_000,
    ) -> None:
        self._limit, self._window = budget.limit, budget.window
        self._most = most
        self._clock = clock
        self._charges: TTLCache[SessionKey, list[_Charge]] = TTLCache(max_keys, budget.window, timer=clock)
        self._open: dict[Job, _Charge] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:  # to be counted, the table drops what is too old
            return len(self._charges)

    def admit(self, job: Job) -> Failure | None:
        """Charge a job, or refuse it uncharged.

        Returns:
            None: charged. Otherwise `rate_limited`, or `invalid_request` where the job alone is over the budget and
            waiting would not help.
        """
        try:
            most = self._most(job)
        except Exception:
            log.exception("a request's tokens could not be counted")
            return Failure("engine_error")
        tokens = most.prompt_tokens + most.completion_tokens
        if tokens > self._limit:
            return Failure("invalid_request", self._never(most))
        now = self._clock()
        with self._lock:
            charges = [charge for charge in self._charges.get(job.key, ()) if now - charge.at < self._window]
            wait = self._wait(charges, tokens, now)
            if wait is not None:
                return Failure("rate_limited", retry_after_ms=max(1, round(wait * 1000)))
            self._charge(job, charges, _Charge(now, tokens))
        return None

    def ended(self, job: Job, outcome: Answer | Failure) -> None:
        """Put what a job really took in the place of its charge."""
        with self._lock:
            charge = self._open.pop(job, None)
            if charge is None:
                return
            if isinstance(outcome, Answer):
                charge.tokens = outcome.usage.prompt_tokens + outcome.usage.completion_tokens
            elif job.taken_at is None or outcome is PASSED_IN_QUEUE:
                charge.tokens = 0

    def _wait(self, charges: list[_Charge], tokens: int, now: float) -> float | None:
        """Seconds until `tokens` more fit the window; None: they do."""
        excess = tokens + sum(charge.tokens for charge in charges) - self._limit
        if excess <= 0:
            return None
        for charge in charges:
            excess -= charge.tokens
            if excess <= 0:
                return charge.at + self._window - now
        raise AssertionError("more than the whole budget is refused before")

    def _charge(self, job: Job, charges: list[_Charge], charge: _Charge) -> None:
        if len(charges) >= _CHARGES:
            charges[1].tokens += charges.pop(0).tokens
        charges.append(charge)
        self._charges[job.key] = charges
        self._open[job] = charge

    def _never(self, most: Usage) -> str:
        return (
            f"It can take {most.prompt_tokens} tokens of prompt and {most.completion_tokens} of answer; "
            f"a session has {self._limit} in {format_duration(self._window)}."
        )
