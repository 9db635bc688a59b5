"""Whose a conversation is, and what makes two requests the same one."""

from __future__ import annotations

from typing import NamedTuple

from inferbus_client.contract import topics


class SessionKey(NamedTuple):
    """Who a conversation belongs to. Two projects never share a session, nor two users, whatever its id.

    `user` is None where topics carry no identity. Where the user is a gateway, which speaks for many, `client` is whom
    it speaks for: two of them share nothing either. It is None for the gateway itself, and for everybody else.
    """

    project: str
    session: str
    user: str | None = None
    client: str | None = None

    @property
    def scope(self) -> str:
        """What its topics begin with."""
        return topics.scope(self.project, self.user)

    def owner(self, client_id: str | None) -> str | None:
        """Who asks here: the topic's user, whom the broker vouches for, else whom the request names, if it does.

        A gateway's client is told from every user: none has a slash, or it would be no level of a topic.
        """
        if self.user is None:
            return client_id
        return self.user if self.client is None else f"{self.user}/{self.client}"

    @property
    def in_topics(self) -> SessionKey:
        """As far as a topic names it, as that of a cancel does."""
        return self if self.client is None else self._replace(client=None)


class RetryKey(NamedTuple):
    """What makes two requests the same one. Only a requester that names both ids takes part.

    `session` is the one that the request names, or None: an answer never goes to whoever merely guesses two ids.
    """

    scope: str
    session: str | None
    client_id: str
    request_id: str
