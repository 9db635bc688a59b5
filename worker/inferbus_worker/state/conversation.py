"""A session's history, as it was when it was claimed, and what a turn changes in it.

Append-only, because the engine's prefix cache then hits on nearly every turn, until it is too long; then it is cut in
large steps, because each cut costs that cache once. A conversation never changes: whoever holds it sees it as it was,
and a change makes another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from inferbus_worker.chat import Message, ToolCall, memory_of

# What a session takes besides its texts: key, conversation, their places in the cache; measured, rounded up.
_SESSION_BYTES = 1024
# And a message: its dictionary, its place in the history.
_MESSAGE_BYTES = 256


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


def _bytes_of(prompt: str | None) -> int:
    """The same whenever it is asked: Python's own figure grows when a text is written somewhere."""
    return len((prompt or "").encode(errors="replace"))


def remembered(message: Message, tokens: int) -> Remembered:
    """A message with its sizes."""
    size = _MESSAGE_BYTES + memory_of(message["content"])
    for key in ("tool_calls", "tool_call_id"):
        if key in message:
            size += memory_of(message[key])
    return Remembered(message, tokens, size)


class Change(NamedTuple):
    """What a turn does to a conversation, as a whole or not at all.

    Attributes:
        messages: what is new, oldest first.
        forgotten: how many of the oldest messages go.
        dropped: how many of the newest go, before what is new comes.
        system_prompt: what stands in the place of the project's from now on; None: nothing new.
        resets: whether all that was before goes, the system prompt too.
    """

    messages: Sequence[Remembered] = ()
    forgotten: int = 0
    dropped: int = 0
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
            return Conversation().after(change._replace(resets=False, forgotten=0, dropped=0))
        kept, tokens, size = self.messages, self.tokens, self.bytes
        if change.forgotten or change.dropped:
            end = max(len(kept) - change.dropped, change.forgotten)
            for one in (*kept[: change.forgotten], *kept[end:]):
                tokens -= one.tokens
                size -= one.bytes
            kept = kept[change.forgotten : end]
        for one in change.messages:
            tokens += one.tokens
            size += one.bytes
        prompt = self.system_prompt
        if change.system_prompt is not None:
            prompt = change.system_prompt
            size += _bytes_of(prompt) - _bytes_of(self.system_prompt)
        # One pass over what may be thousands of messages.
        return Conversation(prompt, kept + tuple(change.messages), tokens, size)

    def excess(self, budget: int, *, keeps_last_turn: bool = False) -> int:
        """How many of the oldest messages are too many for `budget` tokens.

        None while the history fits; else as many as bring it down to half of the budget. What stays begins with a
        question: an answer or a tool's result without what it answers confuses a model, and many templates refuse it.

        Args:
            budget: in tokens.
            keeps_last_turn: whether the last turn stays in any case, since it is not over.
        """
        if self.tokens <= budget:
            return 0
        left, most = self.tokens, self._last_turn if keeps_last_turn else len(self.messages)
        for number, one in enumerate(self.messages[:most]):
            if number and one.message["role"] == "user" and left <= max(budget, 0) // 2:
                return number
            left -= one.tokens
        return most

    @property
    def unanswered(self) -> Sequence[ToolCall]:
        """The calls that its last turn ends with, and waits for the results of."""
        return self.messages[-1].message.get("tool_calls", ()) if self.messages else ()

    def without_last_turn(self) -> Conversation:
        """The conversation as it was before its last question."""
        return self.after(Change(dropped=len(self.messages) - self._last_turn))

    @property
    def _last_turn(self) -> int:
        """The number of the last question."""
        return next((n for n in reversed(range(len(self.messages))) if self.messages[n].message["role"] == "user"), 0)

    def tokens_without(self, count: int) -> int:
        """The length of the history without its `count` oldest messages."""
        return self.tokens - sum(one.tokens for one in self.messages[:count])
