"""Sleeps in the store until something can be taken, over a connection of its own: whoever sleeps holds his up."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from inferbus_worker.state.errors import StoreAwayError
from inferbus_worker.state.redis.connection import Store
from inferbus_worker.state.redis.group import RedisGroup
from inferbus_worker.state.redis.words import in_words

if TYPE_CHECKING:
    from redis import Redis

#: Seconds beyond those that were asked for after which the store has no word for us any more.
_PATIENCE: Final = 1.0


class Bells:
    """For one thread.

    Args:
        store: where they hang.
        group: knows what they are called.
        longest: seconds that anybody ever sleeps.
    """

    def __init__(self, store: Store, group: RedisGroup, longest: float) -> None:
        self._store = store
        self._group = group
        self._longest = longest
        self._client: Redis | None = None

    def wait(self, models: Sequence[str], seconds: float) -> None:
        """Sleep until one of them rings, or our own, for so many seconds.

        Raises:
            StoreAwayError: the store does not answer.
        """
        import redis  # noqa: PLC0415

        keys = [self._group.own_bell, *map(self._group.bell, models)]
        try:
            if self._client is None:
                address = self._store.place_of(self._group.prefix)
                self._client = self._store.client(address, self._longest + _PATIENCE)
            self._client.blpop(keys, seconds)
        except (redis.RedisError, OSError) as error:
            self.close()
            raise StoreAwayError(in_words(error, "the store").reason) from None

    def close(self) -> None:
        """A later call connects again."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):  # nobody uses it again
                client.close()
