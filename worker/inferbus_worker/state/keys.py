"""Whose a conversation is, and what makes two requests the same one."""

from __future__ import annotations

from typing import NamedTuple

from inferbus_client.contract import topics


class SessionKey(NamedTuple):
    """Who a conversation belongs to. Two projects never share a session, nor two users, whatever its id.

    `user` is None where topics carry no identity.
    """

    project: str
    session: str
    user: str | None = None

    @property
    def scope(self) -> str:
        """What its topics begin with."""
        return topics.scope(self.project, self.user)

    def owner(self, client_id: str | None) -> str | None:
        """Who asks here: the topic's user, whom the broker vouches for, else whom the request names, if it does."""
        return client_id if self.user is None else self.user


class RetryKey(NamedTuple):
    """What makes two requests the same one. Only a requester that names both ids takes part.

    `session` is the one that the request names, or None: an answer never goes to whoever merely guesses two ids.
    """

    scope: str
    session: str | None
    client_id: str
    request_id: str
