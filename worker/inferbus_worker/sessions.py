"""Conversations, and the claim on one.

A session is claimed at admission and belongs to one request until that request's terminal reply. Claimed sessions live
outside the cache that forgets, so that no claim can lose its session; the number of claims is bounded by the queue.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from cachetools import TTLCache

from inferbus_worker.engines.base import Message


class SessionKey(NamedTuple):
    """Who a conversation belongs to. Two projects never share a session, whatever its id."""

    project: str
    session: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question with its answer; `tokens` counts both, by the model's tokenizer."""

    question: str | list[dict[str, Any]]
    answer: str
    tokens: int


@dataclass(slots=True)
class Conversation:
    """A session's history: append-only until it is too long, then cut in large steps.

    Append-only, because the engine's prefix cache then hits on nearly every turn; in large steps, because each cut
    costs that cache once.
    """

    system_prompt: str | None = None
    exchanges: list[Exchange] = field(default_factory=list)
    tokens: int = 0

    def append(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.tokens += exchange.tokens

    def trim(self, budget: int) -> int:
        """Where the history is over `budget` tokens, drop whole oldest exchanges until it is at most half of it.

        Returns:
            How many exchanges went.
        """
        if self.tokens <= budget:
            return 0
        dropped = 0
        while self.exchanges and self.tokens > max(budget, 0) // 2:
            self.tokens -= self.exchanges[dropped].tokens
            dropped += 1
            if dropped == len(self.exchanges):
                break
        del self.exchanges[:dropped]
        return dropped

    def clear(self) -> None:
        self.system_prompt = None
        self.exchanges.clear()
        self.tokens = 0

    def messages(self) -> list[Message]:
        """The history in OpenAI's shape, oldest first, without the system prompt."""
        return [
            message
            for exchange in self.exchanges
            for message in (
                {"role": "user", "content": exchange.question},
                {"role": "assistant", "content": exchange.answer},
            )
        ]


class Claim(Protocol):
    """The right to a session until `release`, which any thread may call, any number of times."""

    @property
    def conversation(self) -> Conversation: ...

    def release(self) -> None: ...


class SessionStore(Protocol):
    """Where conversations live. Memory here; a shared store can take its place behind the same three words."""

    def claim(self, key: SessionKey) -> Claim | None:
        """The session, made if it is new; None, at once, while somebody else holds it."""
        ...

    def __len__(self) -> int: ...


class MemorySessions:
    """Sessions in this process: at most `max_sessions` idle ones, each at most `ttl` seconds idle."""

    def __init__(self, max_sessions: int, ttl: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._idle: TTLCache[SessionKey, Conversation] = TTLCache(max_sessions, ttl, timer=clock)
        self._claimed: dict[SessionKey, Conversation] = {}
        self._lock = threading.Lock()

    def claim(self, key: SessionKey) -> Claim | None:
        """See `SessionStore.claim`."""
        with self._lock:
            if key in self._claimed:
                return None
            conversation = self._idle.pop(key, None) or Conversation()
            self._claimed[key] = conversation
        return _MemoryClaim(self, key, conversation)

    def give_back(self, key: SessionKey) -> None:
        """End the claim; the session becomes the most recently used one, unless it holds nothing worth keeping."""
        with self._lock:
            conversation = self._claimed.pop(key)
            if conversation.exchanges or conversation.system_prompt is not None:
                self._idle[key] = conversation

    @property
    def claimed(self) -> int:
        return len(self._claimed)

    def __len__(self) -> int:
        return len(self._idle) + len(self._claimed)


class _MemoryClaim:
    def __init__(self, store: MemorySessions, key: SessionKey, conversation: Conversation) -> None:
        self._store = store
        self._key = key
        self._open = threading.Lock()
        self.conversation = conversation

    def release(self) -> None:
        # A lock that is never let go again is the cheapest "only the first caller".
        if self._open.acquire(blocking=False):
            self._store.give_back(self._key)
