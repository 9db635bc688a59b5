"""Conversations in this process, and the claim on one.

A session is claimed at admission and belongs to one request until that request's terminal reply. The claim holds its
conversation, whatever the cache forgets meanwhile, so that no claim can lose its session; the number of claims is
bounded by the queue.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable

from cachetools import TTLCache

from inferbus_worker.seldom import Seldom
from inferbus_worker.state.conversation import Change, Conversation
from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.protocols import Levels

log = logging.getLogger("inferbus.sessions")


class MemorySessions:
    """Sessions in this process: at most `max_sessions` kept, of `max_bytes` together, none idle for over `ttl` s.

    What goes for want of room is the least recently used. A claim holds its conversation itself: forgotten meanwhile,
    it is kept again when the claim ends. Such, and those that are new, come on top: at most as many as wait or run.
    """

    def __init__(
        self,
        max_sessions: int,
        ttl: float,
        *,
        max_bytes: int = 256 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_sessions = max_sessions
        self._kept: TTLCache[SessionKey, Conversation] = TTLCache(
            max_bytes, ttl, timer=clock, getsizeof=lambda conversation: conversation.bytes
        )
        self._claims: dict[SessionKey, _MemoryClaim] = {}
        self._fences = itertools.count(1)
        self._seldom = Seldom(log)
        self._lock = threading.Lock()

    def claim(self, key: SessionKey) -> _MemoryClaim | None:
        """See `SessionStore.claim`."""
        with self._lock:
            if key in self._claims:
                return None
            try:
                conversation = self._kept[key]  # and stays there: to take it out and put it back costs three times this
            except KeyError:
                conversation = Conversation()
            claim = self._claims[key] = _MemoryClaim(self, key, next(self._fences), conversation)
            return claim

    def commit(self, key: SessionKey, claim: _MemoryClaim, change: Change) -> bool:
        """See `Claim.commit`; what is written is kept when the claim ends."""
        with self._lock:
            if self._claims.get(key) is not claim:
                return False
            claim.latest = claim.latest.after(change)
            return True

    def release(self, key: SessionKey, claim: _MemoryClaim) -> None:
        """End the claim; the session becomes the most recently used one, unless it holds nothing worth keeping."""
        with self._lock:
            if self._claims.get(key) is not claim:
                return
            del self._claims[key]
            if claim.latest.is_empty:
                self._kept.pop(key, None)
            else:
                self._keep(key, claim.latest)

    def _keep(self, key: SessionKey, conversation: Conversation) -> None:
        if key not in self._kept:
            while len(self._kept) >= self._max_sessions:
                self._kept.popitem()
        try:
            self._kept[key] = conversation  # the cache itself makes room for its bytes
        except ValueError:
            self._kept.pop(key, None)
            self._seldom.warning(
                "forgot a conversation of %d bytes, more than all together may have", conversation.bytes
            )

    @property
    def claimed(self) -> int:
        return len(self._claims)

    def levels(self) -> Levels:
        """Sessions that are kept, also while they are claimed, and what they take in memory, about."""
        with self._lock:
            return {
                "sessions": (len(self._kept), self._max_sessions),
                "historyBytes": (int(self._kept.currsize), int(self._kept.maxsize)),
            }

    def __len__(self) -> int:
        # Under the lock: to be counted, the cache drops what is too old.
        with self._lock:
            return len(self._kept) + sum(key not in self._kept for key in self._claims)


class _MemoryClaim:
    __slots__ = ("_key", "_store", "conversation", "fence", "latest")

    def __init__(self, store: MemorySessions, key: SessionKey, fence: int, conversation: Conversation) -> None:
        self._store = store
        self._key = key
        self.fence = fence
        self.conversation = conversation
        #: What has been written since; for the store alone.
        self.latest = conversation

    def commit(self, change: Change) -> bool:
        """See `Claim.commit`."""
        return self._store.commit(self._key, self, change)

    def release(self) -> None:
        """See `Claim.release`."""
        self._store.release(self._key, self)
