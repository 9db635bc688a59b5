"""Whose turn it is in each session: one request of ours at a time, since the worker would refuse a second one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

from inferbus_client.exchange.steps import Deliver, Signal


@dataclass(eq=False)
class Place:
    """A request's place in the line of its session.

    Attributes:
        session: the conversation; None where there is none, and so no line.
        caller: the thread or task that the request is for, and that alone can bring it to its end.
    """

    session: str | None
    caller: object


class Turns:
    """First come, first served, from any thread or event loop; who waits is told by an event.

    Whoever has the turn is known weakly: one that was thrown out of `standing` on its very last step leaves nothing
    behind but garbage.
    """

    def __init__(self) -> None:
        # Re-entrant, since the garbage collector may close an abandoned stream here, while its thread is in here too.
        self._lock = threading.RLock()
        self._first: WeakValueDictionary[str, Place] = WeakValueDictionary()
        self._lines: dict[str, OrderedDict[Place, Deliver]] = {}

    @contextmanager
    def standing(self, place: Place, deliver: Deliver) -> Iterator[None]:
        """While inside, the place stands in line, or has the turn; `deliver` is told when that comes."""
        if place.session is None:
            yield
            return
        try:
            with self._lock:
                self._lines.setdefault(place.session, OrderedDict())[place] = deliver
                self._advance(place.session)
            yield
        finally:
            with self._lock:
                if self._first.get(place.session) is place:
                    del self._first[place.session]
                self._lines.get(place.session, OrderedDict()).pop(place, None)
                self._advance(place.session)

    def has_come(self, place: Place) -> bool:
        """Whether it is this one's turn."""
        return place.session is None or self._first.get(place.session) is place

    def is_waiting_for_itself(self, place: Place) -> bool:
        """Whether the turn is with another request of the same caller, which has to end first and cannot."""
        first = self._first.get(place.session or "")
        return first is not None and first is not place and first.caller is place.caller

    def _advance(self, session: str) -> None:
        line = self._lines.get(session)
        while line and session not in self._first:
            self._first[session], deliver = line.popitem(last=False)
            deliver(Signal.TURN)
        if not line:
            self._lines.pop(session, None)
