"""Conversations, and the claim on one.

A session is claimed at admission and belongs to one request until that request's terminal reply. The claim holds its
conversation, whatever the cache forgets meanwhile, so that no claim can lose its session; the number of claims is
bounded by the queue.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from cachetools import TTLCache

from inferbus_client.contract import topics
from inferbus_worker.chat import Message
from inferbus_worker.seldom import Seldom

log = logging.getLogger("inferbus.sessions")

# What a session takes besides its texts: key, conversation, their places in the cache; measured, rounded up.
_SESSION_BYTES = 1024
# And an exchange: two messages, their places in the lists.
_EXCHANGE_BYTES = 512
# And a content part: its dictionaries.
_PART_BYTES = 512


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


class Exchange(NamedTuple):
    """One question with its answer; `tokens` counts both, by the model's tokenizer."""

    question: str | list[dict[str, Any]]
    answer: str
    tokens: int

    @property
    def bytes(self) -> int:
        """What it takes in memory, about."""
        return _EXCHANGE_BYTES + _size(self.question) + _size(self.answer)


@dataclass(slots=True)
class Conversation:
    """A session's history: append-only until it is too long, then cut in large steps.

    Append-only, because the engine's prefix cache then hits on nearly every turn; in large steps, because each cut
    costs that cache once.

    Attributes:
        system_prompt: what this session's requests have put in the place of the project's.
        messages: questions and answers in OpenAI's shape, oldest first, without the system prompt.
        tokens: the length of all of them.
    """

    system_prompt: str | None = None
    messages: list[Message] = field(default_factory=list)
    tokens: int = 0
    _sizes: list[int] = field(default_factory=list)
    _bytes: list[int] = field(default_factory=list)
    _sum_of_bytes: int = 0

    @property
    def bytes(self) -> int:
        """What it takes in memory, about."""
        return _SESSION_BYTES + self._sum_of_bytes + _size(self.system_prompt or "")

    def append(self, exchange: Exchange) -> None:
        self.messages.append({"role": "user", "content": exchange.question})
        self.messages.append({"role": "assistant", "content": exchange.answer})
        self._sizes.append(exchange.tokens)
        self.tokens += exchange.tokens
        self._bytes.append(exchange.bytes)
        self._sum_of_bytes += self._bytes[-1]

    def excess(self, budget: int) -> int:
        """How many whole oldest exchanges are too many for `budget` tokens.

        None while the history fits; else as many as bring it down to half of the budget.
        """
        if self.tokens <= budget:
            return 0
        left, count = self.tokens, 0
        while count < len(self._sizes) and left > max(budget, 0) // 2:
            left -= self._sizes[count]
            count += 1
        return count

    def tokens_without(self, count: int) -> int:
        """The length of the history without its `count` oldest exchanges."""
        return self.tokens - sum(self._sizes[:count])

    def forget(self, count: int) -> None:
        """Drop the oldest exchanges. Part of committing a turn: one that fails costs the conversation nothing."""
        if not count:
            return
        self.tokens = self.tokens_without(count)
        self._sum_of_bytes -= sum(self._bytes[:count])
        del self._sizes[:count]
        del self._bytes[:count]
        del self.messages[: 2 * count]

    def clear(self) -> None:
        self.system_prompt = None
        self.messages.clear()
        self._sizes.clear()
        self._bytes.clear()
        self.tokens = self._sum_of_bytes = 0


def _size(content: str | list[dict[str, Any]]) -> int:
    """The memory of a message's content; an image counts as the data URI that it is."""
    if isinstance(content, str):
        return sys.getsizeof(content)
    return sum(_PART_BYTES + sys.getsizeof(text) for part in content for text in _texts(part))


def _texts(part: dict[str, Any]) -> list[str]:
    return [part["text"]] if part["type"] == "text" else [part["image_url"]["url"]]


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
        self._claimed: dict[SessionKey, Conversation] = {}
        self._seldom = Seldom(log)
        self._lock = threading.Lock()

    def claim(self, key: SessionKey) -> Claim | None:
        """See `SessionStore.claim`."""
        with self._lock:
            if key in self._claimed:
                return None
            try:
                conversation = self._kept[key]  # and stays there: to take it out and put it back costs three times this
            except KeyError:
                conversation = Conversation()
            self._claimed[key] = conversation
        return _MemoryClaim(self, key, conversation)

    def give_back(self, key: SessionKey) -> None:
        """End the claim; the session becomes the most recently used one, unless it holds nothing worth keeping."""
        with self._lock:
            conversation = self._claimed.pop(key)
            if conversation.messages or conversation.system_prompt is not None:
                self._keep(key, conversation)
            else:
                self._kept.pop(key, None)

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
        return len(self._claimed)

    @property
    def kept(self) -> int:
        """Sessions that are kept, also while they are claimed."""
        with self._lock:
            return len(self._kept)

    @property
    def kept_bytes(self) -> int:
        """What they take in memory, about."""
        with self._lock:
            return int(self._kept.currsize)

    def __len__(self) -> int:
        # Under the lock: to be counted, the cache drops what is too old.
        with self._lock:
            return len(self._kept) + sum(key not in self._kept for key in self._claimed)


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
