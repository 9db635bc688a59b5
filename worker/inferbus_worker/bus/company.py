"""Other workers on our projects: two would answer every request twice, so whoever was there first stays.

Before a worker takes requests it reads everybody's presence, and asks each that seems to serve one of its projects for
its stats: presence is retained and may be left over, whoever answers lives. One that answers that it serves sends us
away. One that answers that it is `joining`, so looks around as we do, makes us go if it was started before us, else we
wait for it to go. That exactly one stays follows from the order in which each does this:

1. it subscribes to everybody's presence, and to questions for its stats;
2. it says its own presence, and waits until that has come back: now it has heard of all who had said theirs before;
3. it asks those, and itself: while it hears its own answers, it would hear theirs. Whoever hears the question has
   heard of the asker before, and answers it only after that; so of two the later one is known to the
   earlier while that still looks around, or is told by it that it has ended to look.

Nobody who serves ever goes because of what is said here: anyone may say it where the broker has no access rules.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence, Stats, decode_announcement
from inferbus_client.errors import AlreadyServedError
from inferbus_client.units import counted
from inferbus_worker.bus.rivals import in_words

log = logging.getLogger("inferbus.company")

_LOOK_EVERY: Final = 0.02
#: The longest wait for our own presence to come back: where it may not be read, it never does.
_ECHO: Final = 1.5
#: Stats are answered at most once a second, and perhaps by a busy machine.
_ANSWER: Final = 3.0
_ASK_EVERY: Final = 1.0
#: Answers of our own that are heard meanwhile: a connection that is lost or stalls must not make others seem dead.
_OWN_ANSWERS: Final = 3
#: The longest look: by then everybody who is to go has gone, or is none that we could wait for.
_AT_MOST: Final = 15.0
#: Others who are noted in all; more than that are not workers of one project but somebody's invention.
_MAX_OTHERS: Final = 64

#: What to subscribe to while looking around.
FILTERS: Final = (topics.presence("+"), topics.stats("+"))


@dataclass(slots=True)
class _Other:
    """A worker that seems to serve a project of ours, when it was asked first and last, and what it answered.

    `before` counts the answers of our own that we had heard when it was asked first.
    """

    presence: Presence
    first_asked: float | None = None
    before: int = 0
    asked: float = -math.inf
    answer: Literal["serves", "joining"] | None = None


class Company:
    """Looks who else is here. `heard` is for the network thread, `look_around` for another.

    Args:
        me: our own presence, with its instance.
        ask: publishes a question for the stats of a worker.
        clock: a monotonic one.
    """

    def __init__(
        self, me: Presence, ask: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._me = me
        self._ask = ask
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self._others: dict[str, _Other] = {}
        self._noted = 0
        self._hears_itself = False
        self._own_asked = -math.inf
        self._own_answers = 0

    def heard(self, topic: str, payload: bytes) -> None:
        """A message on one of `FILTERS`."""
        worker, kind = topic.split("/")[2:4]
        with self._lock:
            if kind == "stats":
                self._heard_stats(worker, decode_announcement(Stats, payload))
            else:
                self._heard_presence(worker, decode_announcement(Presence, payload))

    def look_around(self, goes_on: Callable[[], bool]) -> None:
        """Return when nobody else serves our projects, or that cannot be known.

        Args:
            goes_on: asked all the time, and does what has to be done meanwhile; False ends this.

        Raises:
            AlreadyServedError: somebody does.
        """
        while goes_on() and not self.look():
            time.sleep(_LOOK_EVERY)

    def look(self) -> bool:
        """One look; whether it is over. See `look_around`."""
        waited = self._clock() - self._began
        with self._lock:
            if self._hears_itself and self._nobody_is_left():
                return True
            if waited < (_AT_MOST if self._hears_itself else _ECHO):
                return False
            log.warning("whether another worker serves our projects is not known: %s", self._unknown())
            return True

    def _heard_presence(self, worker: str, said: Presence | None) -> None:
        if worker == self._me.worker:
            self._hears_itself = self._hears_itself or _mark(said) == _mark(self._me)
        elif said is None or said.state not in {"loading", "ready"} or not self._shared(said):
            self._others.pop(worker, None)
        elif worker in self._others:
            self._others[worker].presence = said
        elif self._noted < _MAX_OTHERS and topics.is_worker(worker):
            self._noted += 1
            self._others[worker] = _Other(said)

    def _heard_stats(self, worker: str, stats: Stats | None) -> None:
        self._own_answers += worker == self._me.worker
        other = self._others.get(worker)
        if other is not None and stats is not None and other.first_asked is not None:
            other.answer = "joining" if stats.joining else "serves"

    def _nobody_is_left(self) -> bool:
        """Whether all who seemed to serve our projects have gone; asks those who may not have."""
        now = self._clock()
        for worker, other in list(self._others.items()):
            if other.answer == "serves" or (other.answer == "joining" and _precedes(other.presence, self._me)):
                groups = other.presence.group is not None or self._me.group is not None
                raise AlreadyServedError(
                    worker, self._shared(other.presence), self._where(other.presence), groups=groups
                )
            if self._is_silent(other, now):
                log.warning("worker %r, which is %s by its presence, does not answer", worker, other.presence.state)
                del self._others[worker]
            elif now >= other.asked + _ASK_EVERY:
                if other.first_asked is None:
                    other.first_asked, other.before = now, self._own_answers
                other.asked = now
                self._ask(worker)
        if self._others and now >= self._own_asked + _ASK_EVERY:
            self._own_asked = now
            self._ask(self._me.worker)
        return not self._others

    def _is_silent(self, other: _Other, now: float) -> bool:
        """Whether it does not answer, though it was asked long ago and everything comes through."""
        if other.first_asked is None or other.answer is not None or now < other.first_asked + _ANSWER:
            return False
        return self._own_answers >= other.before + _OWN_ANSWERS

    def _shared(self, said: Presence) -> tuple[str, ...]:
        """The projects that both serve, if they serve them on the same topics, and not as one group."""
        if said.group is not None and said.group == self._me.group and not self._keeps_elsewhere(said):
            return ()
        if said.identity is not None and said.identity != self._me.identity:
            return ()
        return tuple(sorted({*said.projects} & {*self._me.projects}))

    def _keeps_elsewhere(self, said: Presence) -> bool:
        return said.store is not None and self._me.store is not None and said.store != self._me.store

    def _where(self, said: Presence) -> str:
        """Where another one runs and, where it shares its projects, with whom."""
        where = "it does not say where" if said.instance is None else in_words(said.instance)
        if said.group is None:
            return where
        return f"{where}, in group {said.group}" + (" but with another --state" if said.group == self._me.group else "")

    def _unknown(self) -> str:
        if not self._hears_itself:
            return "not even our own presence comes back"
        if not self._own_answers:
            return "not even we can be asked for our stats"
        first, *more = self._others
        among = f" and {counted(len(more), 'other')}" if more else ""
        return f"{first!r}{among} {'look' if more else 'looks'} around as long as we do"


def _mark(said: Presence | None) -> str | None:
    return None if said is None or said.instance is None else said.instance.mark


def _precedes(other: Presence, me: Presence) -> bool:
    return me.instance is None or other.instance is None or other.instance.precedes(me.instance)
