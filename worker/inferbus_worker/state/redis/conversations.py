"""Conversations in the store: a small record for each session, and its history under a key of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from inferbus_worker.state.redis.bids import short
from inferbus_worker.state.redis.calls import Argument, Call
from inferbus_worker.state.redis.holdings import Turn
from inferbus_worker.state.redis.scripted import Scripted, nothing

#: Milliseconds that a history outlives its record: whoever has claimed the session still reads it.
_LONGER: Final = 3_600_000


class Conversations(Scripted):
    """See `RedisGroup`."""

    def reset(self, session: str, pending: bytes) -> Call[int | None]:
        """Forget a conversation: its new version, 0 where there was none; None while somebody claims it.

        Its history is to be deleted, see `forget`; what is written next says that it `resets`.

        Args:
            session: whose.
            pending: the change that this is, for whoever finds the history not yet deleted.
        """
        return self._call("reset", short(session), pending, read=lambda answer: answer)

    def history(self, session: str) -> Call[tuple[int, list[bytes]]]:
        """The version that was written last, 0: none, and what `append` wrote: the header, then the messages."""
        return Call("LRANGE", (self._history(session),), (0, -1), _read_history, is_history=True)

    def pending(self, session: str) -> Call[tuple[int, bytes | None]]:
        """The session's version, and the change that its history may lack."""
        return Call("HMGET", (self._session(session),), ("version", "pending"), _read_pending)

    def append(self, session: str, version: int, turn: Turn) -> Call[bool]:
        """Write a turn into the history: True also where it lies there already, False where it came too late.

        Args:
            session: whose.
            version: that this makes; the history must have the one before, unless the turn resets or is the first.
            turn: what changes.
        """
        return Call("append", (self._history(session),), (version, *self._turn(turn)), bool, is_history=True)

    def _turn(self, turn: Turn) -> tuple[Argument, ...]:
        ttl = self._session_ms + _LONGER
        return (turn.header, ttl, turn.forgotten, turn.dropped, int(turn.resets), *turn.messages)

    def forget(self, sessions: Iterable[str]) -> list[Call[None]]:
        """Delete histories."""
        return [Call("DEL", (self._history(session),), (), nothing, is_history=True) for session in sessions]

    def drop_session(self, session: str) -> Call[bool]:
        """Forget a session, claimed or not; whether there was one. Its history is for `forget`."""
        return self._call("drop_session", short(session), read=bool)


def _read_history(answer: Any) -> tuple[int, list[bytes]]:
    return (int(answer[0]), answer[1:]) if answer else (0, [])


def _read_pending(answer: Any) -> tuple[int, bytes | None]:
    version, pending = answer
    return int(version or 0), pending
