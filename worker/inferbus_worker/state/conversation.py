"""A session's history, as it was when it was claimed, and what a turn changes in it.

Append-only, because the engine's prefix cache then hits on nearly every turn, until it is too long; then it is cut in
large steps, because each cut costs that cache once. A conversation never changes: whoever holds it sees it as it was,
and a change makes another one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from inferbus_worker.chat import Message

# What a session takes besides its texts: key, conversation, their places in the cache; measured, rounded up.
_SESSION_BYTES = 1024
# And a message: its dictionary, its place in the history.
_MESSAGE_BYTES = 256
# And a content part, a tool call or anything else that is built of dictionaries.
_PART_BYTES = 512


class Remembered(NamedTuple):
    """A message of the history.

    Attributes:
        message: in OpenAI's shape.
        tokens: its length, the template's share included.
        bytes: what it takes in memory, about.
    """

    message: Message
    tokens: int
    bytes: int


def remembered(message: Message, tokens: int) -> Remembered:
    """A message with its sizes."""
    return Remembered(message, tokens, _MESSAGE_BYTES + _size(message["content"]))


class Change(NamedTuple):
    """What a turn does to a conversation, as a whole or not at all.

    Attributes:
        messages: what is new, oldest first.
        forgotten: how many of the oldest messages go.
        system_prompt: what stands in the place of the project's from now on; None: nothing new.
        resets: whether all that was before goes, the system prompt too.
    """

    messages: Sequence[Remembered] = ()
    forgotten: int = 0
    system_prompt: str | None = None
    resets: bool = False


class Conversation(NamedTuple):
    """A history at one moment.

    Attributes:
        system_prompt: what this session's requests have put in the place of the project's.
        messages: oldest first, without the system prompt.
        tokens: the length of all of them.
        bytes: what it takes in memory, about.
    """

    system_prompt: str | None = None
    messages: tuple[Remembered, ...] = ()
    tokens: int = 0
    bytes: int = _SESSION_BYTES

    @property
    def is_empty(self) -> bool:
        """Whether it holds nothing worth keeping."""
        return not self.messages and self.system_prompt is None

    def after(self, change: Change) -> Conversation:
        """The conversation with a change made."""
        if change.resets:
            return Conversation().after(change._replace(resets=False, forgotten=0))
        gone = self.messages[: change.forgotten]
        prompt = self.system_prompt if change.system_prompt is None else change.system_prompt
        return Conversation(
            prompt,
            (*self.messages[change.forgotten :], *change.messages),
            self.tokens + sum(one.tokens for one in change.messages) - sum(one.tokens for one in gone),
            self.bytes
            + sum(one.bytes for one in change.messages)
            - sum(one.bytes for one in gone)
            + sys.getsizeof(prompt or "")
            - sys.getsizeof(self.system_prompt or ""),
        )

    def excess(self, budget: int) -> int:
        """How many of the oldest messages are too many for `budget` tokens.

        None while the history fits; else as many as bring it down to half of the budget. What stays begins with a
        question: an answer or a tool's result without what it answers confuses a model, and many templates refuse it.
        """
        if self.tokens <= budget:
            return 0
        left = self.tokens
        for number, one in enumerate(self.messages):
            if number and one.message["role"] == "user" and left <= max(budget, 0) // 2:
                return number
            left -= one.tokens
        return len(self.messages)

    def tokens_without(self, count: int) -> int:
        """The length of the history without its `count` oldest messages."""
        return self.tokens - sum(one.tokens for one in self.messages[:count])


def _size(content: Any) -> int:
    """The memory of a message's content; an image counts as the data URI that it is."""
    if isinstance(content, str):
        return sys.getsizeof(content)
    if isinstance(content, Mapping):
        return _PART_BYTES + sum(_size(value) for value in content.values())
    if isinstance(content, list | tuple):
        return sum(_size(part) for part in content)
    return sys.getsizeof(content)
