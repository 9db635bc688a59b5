"""Sleeping until the store has something for this worker."""

from __future__ import annotations

from collections.abc import Sequence

from inferbus_worker.state.redis.connection import TIMEOUT, Store
from inferbus_worker.state.redis.wire import Wire


class Bells:
    """Lists that others push to when there is something to take. For one thread, over a connection of its own."""

    def __init__(self, store: Store, key: str, seconds: float = 1.0) -> None:
        """Nothing is connected yet.

        Args:
            store: where they are.
            key: one that has the group's hash tag.
            seconds: how long one wait takes at most, more than 0.
        """
        self._store = store
        self._key = key
        self._seconds = seconds
        self._wire: Wire | None = None

    def wait(self, names: Sequence[str]) -> str | None:
        """The bell of these that has rung, or None when the time is over.

        Raises:
            StoreError: the store is away. It comes at once, or within half a second more than was to be waited.
        """
        if self._wire is None:
            self._store.refresh()
            self._wire = self._store.wire(self._store.place_of(self._key), self._seconds + TIMEOUT)
        try:
            answer = self._wire.ask("BLPOP", *names, f"{self._seconds:.3f}")
        except BaseException:
            self.close()
            raise
        return None if answer is None else str(answer[0].decode())

    def close(self) -> None:
        """Hang up; the next wait connects anew."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None
