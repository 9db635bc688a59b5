"""The rate limits of a request: its session's, its client's, its project's, and the one for all together.

A request that one of them refuses counts in none of them. What a client is depends on who vouches for it: with the
identity in the topic it is the topic's user, in all projects together, or whom a gateway names; else it is the
payload's `clientId`, which is the requester's word and no more. Requests that name no client are one client of their
project, so that leaving the name out is no way around; making names up is one, and there only the project's limit and
the total one hold. A request that brings its whole conversation along is in no session, and the session's limit is none
of its business.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from inferbus_worker.settings.rates import RateLimit
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.protocols import Levels, Window, Windows

_KeyOf = Callable[[SessionKey, str | None], Hashable]


class RateLimits:
    """The limits that are on; those that are off cost nothing. Any thread may call.

    Args:
        settings: the worker's.
        windows: where requests are counted.
    """

    def __init__(self, settings: Settings, windows: Windows) -> None:
        self._windows = windows
        self._max_keys = settings.rate_limit_sessions
        # By project, and by whether the request is in a session.
        self._active: dict[tuple[str, bool], tuple[tuple[str, RateLimit, _KeyOf], ...]] = {}
        growing = (
            ("rateLimitSessions", settings.rate_limit, _session),
            ("rateLimitClients", settings.client_rate_limit, _client),
        )
        #: The tables that grow with those who ask, by the names that the stats give them.
        self._growing = [name for name, rate, _ in growing if rate is not None]
        for name in settings.projects:
            every = (
                *growing,
                (f"project {name}", settings.project_rate_limit_of(name), _nobody),
                ("total", settings.total_rate_limit, _nobody),
            )
            active = tuple((table, rate, key_of) for table, rate, key_of in every if rate is not None)
            self._active[name, True] = active
            self._active[name, False] = tuple(one for one in active if one[2] is not _session)

    def admit(self, key: SessionKey, client_id: str | None, *, in_session: bool = True) -> float | None:
        """Count a request in every window that it belongs to, or refuse it uncounted.

        Args:
            key: its session.
            client_id: who its payload says that asks.
            in_session: whether it takes part in that session; else the key only says where its replies go.

        Returns:
            None: admitted. Otherwise the seconds until the last of the windows that are full has room.
        """
        windows = self.windows_of(key, client_id, in_session=in_session)
        return self._windows.admit(windows) if windows else None

    def windows_of(self, key: SessionKey, client_id: str | None, *, in_session: bool = True) -> list[Window]:
        """Every window that a request belongs to; see `admit`."""
        active = self._active[key.project, in_session]
        return [Window(table, key_of(key, client_id), rate) for table, rate, key_of in active]

    def levels(self) -> Levels:
        """The lengths of the tables that grow with those who ask."""
        levels = self._windows.levels()
        return {name: levels.get(name, (0, self._max_keys)) for name in self._growing}


def _session(key: SessionKey, _client_id: str | None) -> Hashable:
    return key


def _client(key: SessionKey, client_id: str | None) -> Hashable:
    return (key.project, client_id) if key.user is None else key.owner(client_id)


def _nobody(_key: SessionKey, _client_id: str | None) -> Hashable:
    """The key of a limit with but one window."""
    return None
