"""Which packet makes a broker close the connection, where it does not say so.

MQTT 3.1.1 has no words for it: whoever sends what is too large, or goes to a topic that the broker does not take, is
disconnected, and so is whoever sends it again on the next connection. But a broker handles packets in their order. So
what was on its way when the connection was closed is under suspicion, and goes alone the next time: a ping behind it,
and nothing else before the answer. If the answer comes, it was innocent. If the connection is closed on it alone twice,
and no answer came in between, the packet is known, and is refused from then on. Once may be chance: where everything
goes alone, a bad network never breaks but while something does.

Where connections are closed one after the other, every packet that is not known to be innocent goes alone for a while.
"""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

#: Seconds without a further case after which everything is forgotten: the broker may have been told otherwise.
MEMORY: Final = 300.0

_CAREFUL: Final = 60.0
#: Messages of QoS 0 leave no trace. Those of the last seconds may still have been on their way; so many at most.
_RECENT: Final = 64
_RECENT_SECONDS: Final = 5.0
#: A connection that is lost so soon after a verdict, with nothing on its way, shows the verdict to be wrong.
_APPEAL: Final = 30.0
_MAX_KEYS: Final = 1024
#: Losses with a packet alone on its way that make it guilty; and so many, of a topic each, that make a mark guilty.
_GUILTY: Final = 2
_GUILTY_MARK: Final = 3


class Parcel(NamedTuple):
    """What a broker may take offence at: a message of so many bytes, or one filter of a subscription."""

    topic: str
    size: int = 0
    is_filter: bool = False

    def __str__(self) -> str:
        return f"a subscription to {self.topic!r}" if self.is_filter else f"{self.size} bytes to {self.topic!r}"

    @property
    def key(self) -> tuple[str, bool]:
        return self.topic, self.is_filter


class Finding(NamedTuple):
    """What a lost connection shows: whether a packet may have been the reason, and which one, if that is clear."""

    suspicious: bool
    guilty: Parcel | None = None


NOTHING_FOUND: Final = Finding(suspicious=False)


@dataclass(slots=True)
class _Suspect:
    """The smallest of its size that was on the way when a connection was lost, and how often alone."""

    size: int
    alone: int = 0


class Suspicion:
    """For the network thread alone."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._recent: deque[tuple[float, str, int]] = deque(maxlen=_RECENT)
        self._forget()

    def _forget(self) -> None:
        self._suspects: OrderedDict[tuple[str, bool], _Suspect] = OrderedDict()
        self._innocent: OrderedDict[tuple[str, bool], int] = OrderedDict()
        self._refused: OrderedDict[tuple[str, bool], int] = OrderedDict()
        self._refused_marks: set[str] = set()
        self._forget_at = 0.0  # as long as there has been no case
        self._careful_until = self._last_case = self._last_verdict = -math.inf

    # --- while a connection stands ---

    @property
    def is_alert(self) -> bool:
        """Whether there is anything to look out for; all others below need asking only then."""
        return self._forget_at > 0

    def begin(self) -> None:
        """A new connection, on which nothing has been written."""
        self._recent.clear()

    def wrote(self, topic: str, size: int) -> None:
        """Note a message of QoS 0."""
        self._recent.append((self._clock(), topic, size))

    def refuses(self, parcel: Parcel) -> bool:
        """Whether it is known that the broker closes the connection on this."""
        if self._clock() >= self._forget_at:
            self._forget()
        limit = self._refused.get(parcel.key)
        if limit is not None and parcel.size >= limit:
            return True
        return not parcel.is_filter and not self._refused_marks.isdisjoint(parcel.topic)

    def suspects(self, parcel: Parcel) -> bool:
        """Whether this should go alone."""
        innocent_up_to = self._innocent.get(parcel.key)
        if innocent_up_to is not None and parcel.size <= innocent_up_to:
            return False
        return parcel.key in self._suspects or self._clock() < self._careful_until

    def acquit(self, parcel: Parcel) -> None:
        """The broker has taken it."""
        suspect = self._suspects.get(parcel.key)
        if suspect is not None and parcel.size >= suspect.size:
            del self._suspects[parcel.key]
        self._innocent[parcel.key] = max(parcel.size, self._innocent.pop(parcel.key, 0))
        _bound(self._innocent)

    def acquit_what_was_written(self) -> None:
        """The broker has answered a ping that was sent after everything else."""
        for _, topic, size in self._recent:
            self.acquit(Parcel(topic, size))
        self._recent.clear()

    # --- where one is lost ---

    def lost(self, unanswered: Sequence[Parcel]) -> Finding:
        """The broker has closed the connection without saying why.

        Args:
            unanswered: what it had not acknowledged, but for the messages of QoS 0, which were noted here.
        """
        now = self._clock()
        written = dict.fromkeys(Parcel(topic, size) for at, topic, size in self._recent if now - at < _RECENT_SECONDS)
        self._recent.clear()
        on_the_way = [*unanswered, *(parcel for parcel in written if not self._is_innocent(parcel))]
        strangers = [parcel for parcel in on_the_way if not self._is_innocent(parcel)]
        if not strangers:
            self._hear_appeal(now)
        if not on_the_way:
            return NOTHING_FOUND
        if now - self._last_case < _CAREFUL:
            self._careful_until = now + _CAREFUL
        self._last_case, self._forget_at = now, now + MEMORY
        for parcel in strangers:
            self._suspect(parcel)
        guilty = len(on_the_way) == 1 and self._is_guilty(on_the_way[0])
        if guilty:
            self._convict(on_the_way[0], now)
        return Finding(suspicious=True, guilty=on_the_way[0] if guilty else None)

    def _suspect(self, parcel: Parcel) -> _Suspect:
        suspect = self._suspects.setdefault(parcel.key, _Suspect(parcel.size))
        suspect.size = min(suspect.size, parcel.size)
        _bound(self._suspects)
        return suspect

    def _is_guilty(self, parcel: Parcel) -> bool:
        """Whether that is clear, now that a connection was lost with nothing but this on its way."""
        if self._is_innocent(parcel):
            # Taken before. The broker may have been told otherwise since: it is tried anew, from the beginning.
            del self._innocent[parcel.key]
            self._suspect(parcel)
            return False
        suspect = self._suspect(parcel)
        suspect.alone += 1
        if not parcel.is_filter:
            self._learn_marks(parcel.topic)
        return suspect.alone >= _GUILTY

    def _is_innocent(self, parcel: Parcel) -> bool:
        return parcel.size <= self._innocent.get(parcel.key, -1)

    def _convict(self, parcel: Parcel, now: float) -> None:
        self._last_verdict = now
        self._suspects.pop(parcel.key, None)
        # Its size may have been the reason, so that smaller ones may pass; a second time it is the topic.
        self._refused[parcel.key] = 0 if parcel.key in self._refused else parcel.size
        _bound(self._refused)

    def _learn_marks(self, topic: str) -> None:
        """Topics that went alone in vain, and the one mark that they share where they differ: NATS, say, takes no dot.

        Without it everybody who makes up such topics could have us disconnected with each.
        """
        accepted = {character for name, is_filter in self._innocent if not is_filter for character in name}
        in_vain = {name: suspect.alone for (name, is_filter), suspect in self._suspects.items() if not is_filter}
        in_vain |= {name: _GUILTY for name, is_filter in self._refused if not is_filter}
        losses: Counter[str] = Counter()
        for other in in_vain.keys() - {topic}:
            shared = {mark for mark in _marks_apart(topic, other) if mark not in accepted}
            if len(shared) == 1 and in_vain[other]:
                losses[shared.pop()] += in_vain[other]
        self._refused_marks |= {mark for mark, count in losses.items() if count + in_vain[topic] >= _GUILTY_MARK}

    def _hear_appeal(self, now: float) -> None:
        """What was refused did not go out, and still the connection was closed."""
        if now - self._last_verdict < _APPEAL:
            self._refused.clear()
            self._refused_marks.clear()


def _marks_apart(one: str, other: str) -> set[str]:
    """Characters other than letters and digits that two topics share in the levels in which they differ."""
    pairs = [pair for pair in zip(one.split("/"), other.split("/"), strict=False) if pair[0] != pair[1]]
    shared = {character for level, _ in pairs for character in level}
    shared &= {character for _, level in pairs for character in level}
    return {character for character in shared if not character.isalnum()}


def _bound(keys: OrderedDict[tuple[str, bool], int] | OrderedDict[tuple[str, bool], _Suspect]) -> None:
    while len(keys) > _MAX_KEYS:
        keys.popitem(last=False)
