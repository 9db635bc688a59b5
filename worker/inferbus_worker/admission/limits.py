"""The rate limits of a request: its session's, its client's, its project's, and the one for all together.

A request that one of them refuses counts in none of them. What a client is depends on who vouches for it: with the
identity in the topic it is the topic's user, in all projects together; else it is the payload's `clientId`, which is
the requester's word and no more. Requests that name no client are one client of their project, so that leaving the
name out is no way around; making names up is one, and there only the project's limit and the total one hold.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.memory.sessions import SessionKey
from inferbus_worker.state.memory.windows import RateLimiter

_KeyOf = Callable[[SessionKey, str | None], Hashable]


class RateLimits:
    """The limits that are on; those that are off cost nothing. Any thread may call.

    Args:
        settings: the worker's.
        clock: a monotonic one.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()

        def limiter(rate: RateLimit | None, max_keys: int) -> RateLimiter | None:
            return None if rate is None else RateLimiter(rate, clock=clock, max_keys=max_keys)

        self._sessions = limiter(settings.rate_limit, settings.rate_limit_sessions)
        self._clients = limiter(settings.client_rate_limit, settings.rate_limit_sessions)
        total = limiter(settings.total_rate_limit, 1)
        self._active: dict[str, tuple[tuple[RateLimiter, _KeyOf], ...]] = {}
        for name in settings.projects:
            project = limiter(settings.project_rate_limit_of(name), 1)
            every = ((self._sessions, _session), (self._clients, _client), (project, _nobody), (total, _nobody))
            self._active[name] = tuple((limiter, key_of) for limiter, key_of in every if limiter is not None)

    def admit(self, key: SessionKey, client_id: str | None) -> float | None:
        """Count a request in every window that it belongs to, or refuse it uncounted.

        Args:
            key: its session.
            client_id: who its payload says that asks.

        Returns:
            None: admitted. Otherwise the seconds until the last of the windows that are full has room.
        """
        active = self._active[key.project]
        if not active:
            return None
        now = self._clock()
        with self._lock:
            windows = [(limiter, whose := key_of(key, client_id), limiter.times(whose)) for limiter, key_of in active]
            wait = max([limiter.wait(times, now) for limiter, _, times in windows])
            if wait:
                return wait
            for limiter, whose, times in windows:
                limiter.count(whose, times, now)
        return None

    def keys_counted(self) -> dict[str, int]:
        """The lengths of the tables that grow with those who ask, by the names that the stats give them."""
        tables = {"rateLimitSessions": self._sessions, "rateLimitClients": self._clients}
        with self._lock:  # to be counted, a table drops what is too old
            return {name: len(limiter) for name, limiter in tables.items() if limiter is not None}


def _session(key: SessionKey, _client_id: str | None) -> Hashable:
    return key


def _client(key: SessionKey, client_id: str | None) -> Hashable:
    return key.user if key.user is not None else (key.project, client_id)


def _nobody(_key: SessionKey, _client_id: str | None) -> Hashable:
    """The key of a limiter with but one window."""
    return None
