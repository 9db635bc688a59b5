"""Conversations in the store, and those of them that this worker has at hand.

A session's record, which lies with all else that the group decides on, holds the number of its version and the last
change; the history itself has a key of its own, wherever a Cluster puts that. A commit writes the record, and the
history follows: whoever finds it one version behind makes the change himself. What this worker has read or written it
keeps, by version: a session that comes back to it costs no reading.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cachetools import LRUCache

from inferbus_worker.group.writing import UnreadableError, read_change, read_conversation, write_turn
from inferbus_worker.seldom import Seldom
from inferbus_worker.state.conversation import Change, Conversation
from inferbus_worker.state.redis.courier import Courier
from inferbus_worker.state.redis.group import RedisGroup

log = logging.getLogger("inferbus.histories")


class Wanted(NamedTuple):
    """A session's history, as of a version; 0 is that of a session which has none."""

    session: str
    version: int


class _AtHand(NamedTuple):
    version: int
    conversation: Conversation


class Histories:
    """Any thread may use it.

    Args:
        courier: reaches the store.
        group: knows its words.
        max_bytes: of what is kept at hand.
        max_sessions: of which something is.
    """

    def __init__(self, courier: Courier, group: RedisGroup, max_bytes: int, max_sessions: int) -> None:
        self._courier = courier
        self._group = group
        self._at_hand: LRUCache[str, _AtHand] = LRUCache(max_bytes, getsizeof=lambda kept: kept.conversation.bytes)
        self._max_sessions = max_sessions
        self._lock = threading.Lock()
        self._seldom = Seldom(log)

    def read(self, wanted: Sequence[Wanted]) -> list[Conversation]:
        """The histories of claimed sessions, in one round trip for all that are not at hand.

        Raises:
            StoreAwayError: the store does not answer.
        """
        found = {one: self._found(one) for one in wanted}
        missing = [one for one, conversation in found.items() if conversation is None]
        calls = [
            call for one in missing for call in (self._group.history(one.session), self._group.pending(one.session))
        ]
        answers = iter(self._courier.ask_all(calls) if calls else ())
        for one, history, pending in zip(missing, answers, answers, strict=True):
            found[one] = self._put_together(one, *history, *pending)
            self.keep(one.session, one.version, found[one] or Conversation())
        return [found[one] or Conversation() for one in wanted]

    def write(self, made: Wanted, change: Change, after: Conversation, written: Callable[[], None]) -> None:
        """Let the history follow a change that the session's record has. Does not wait.

        Args:
            made: the version that the change makes.
            change: what the turn has done.
            after: the conversation with it.
            written: called, in the courier's thread, when the history has it.
        """
        self.keep(made.session, made.version, after)
        self._append(made, change, after, written)

    def forget(self, sessions: Sequence[str]) -> None:
        """Delete the histories of sessions that the store has let go of. Does not wait."""
        for session in sessions:
            with self._lock:
                self._at_hand.pop(session, None)
        for call in self._group.forget(sessions):
            self._courier.post(call)

    def _append(
        self, made: Wanted, change: Change, after: Conversation, written: Callable[[], None] = lambda: None
    ) -> None:
        def answered(fits: bool) -> None:  # noqa: FBT001 - the store's answer
            if fits or change.resets:  # to the whole only what is newer says no, and that has all of this
                written()
            else:  # it is further behind than one change
                whole = Change(after.messages, system_prompt=after.system_prompt, resets=True)
                self._append(made, whole, after, written)

        self._courier.post(self._group.append(*made, write_turn(change, after)), answered, keeps=True)

    def _found(self, wanted: Wanted) -> Conversation | None:
        if not wanted.version:
            return Conversation()
        with self._lock:
            kept = self._at_hand.get(wanted.session)
        return kept.conversation if kept is not None and kept.version == wanted.version else None

    def _put_together(
        self, wanted: Wanted, version: int, written: Sequence[bytes], newest: int, pending: bytes | None
    ) -> Conversation | None:
        """The conversation of what lies in the store; None, and a word about it, where it does not fit together."""
        try:
            conversation = read_conversation(written[0], written[1:]) if written else Conversation()
            if version == wanted.version:
                return conversation
            if pending is not None and newest == wanted.version:
                change = read_change(pending)
                if change.resets or version == wanted.version - 1:
                    self._append(wanted, change, conversation.after(change))
                    return conversation.after(change)
        except UnreadableError as error:
            self._seldom.warning("a history is lost: %s", error)
            return None
        self._seldom.warning("a history is lost: the store has version %d instead of %d", version, wanted.version)
        return None

    def keep(self, session: str, version: int, conversation: Conversation) -> None:
        """Have it at hand, perhaps for the session's next turn."""
        with self._lock:
            # What the store lets go of only one worker hears, and a short history costs more than its bytes.
            while session not in self._at_hand and len(self._at_hand) >= self._max_sessions:
                self._at_hand.popitem()
            try:
                self._at_hand[session] = _AtHand(version, conversation)
            except ValueError:  # larger than all together may be
                self._at_hand.pop(session, None)
