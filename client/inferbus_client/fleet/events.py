"""What has happened on the bus, told from one look at the workers to the next: who came, went, broke, recovered."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from inferbus_client.contract.presence import Instance, Presence
from inferbus_client.fleet.columns import STATE_MEANINGS
from inferbus_client.fleet.watch import WorkerView
from inferbus_client.shown import shown_in_line

#: Letters of a stranger's name that are shown.
_LETTERS: Final = 64
#: Events that are kept, and those of one look: who announces a thousand workers at once makes a line more, not a page.
_KEPT: Final = 200
_OF_ONE_LOOK: Final = 40
#: Seconds that what has happened to a link counts.
_LATELY: Final = 60.0
#: Connections of one worker that are remembered.
_CONNECTIONS: Final = 20
#: What of a slot's words is no trouble.
FINE: Final = frozenset({"", "-", "ready", "starting", "stopped", "closed"})

Kind = Literal["good", "bad", "neutral"]


@dataclass(frozen=True, slots=True)
class Event:
    """One of them.

    Attributes:
        at: in seconds since the Unix epoch.
        kind: whether that is good to hear.
        words: a sentence. Names in it are bounded, and text.
    """

    at: float
    kind: Kind
    words: str


@dataclass(slots=True)
class _Known:
    """What was last seen of a worker."""

    presence: Presence | None = None
    parts: dict[str, str] = field(default_factory=dict)


class Events:
    """Compares looks. Not for several threads at once.

    Attributes:
        recent: the latest, oldest first.
    """

    def __init__(self) -> None:
        self.recent: deque[Event] = deque(maxlen=_KEPT)
        self._known: dict[str, _Known] | None = None
        self._lost_at: float | None = None
        self._losses: deque[float] = deque(maxlen=_CONNECTIONS)
        self._gone: dict[str, tuple[float, bool]] = {}
        self._reconnected: dict[str, deque[float]] = {}

    def look(self, workers: Mapping[str, WorkerView], *, is_up: bool, now: float) -> list[Event]:
        """What is new.

        Args:
            workers: what is known of them.
            is_up: whether the connection to the broker stands.
            now: in seconds since the Unix epoch.
        """
        told = list(self._of_the_broker(is_up=is_up, now=now))
        known = self._known or {}
        seen = {name: _known(view) for name, view in workers.items()}
        # Who was there before the first look has not come now.
        if self._known is not None:
            for name in known.keys() | seen.keys():
                told += self._of_a_worker(name, known.get(name), seen.get(name), now)
        self._known = seen
        if len(told) > _OF_ONE_LOOK:
            more = len(told) - _OF_ONE_LOOK
            told[_OF_ONE_LOOK:] = [Event(now, "neutral", f"And {more} events more at the same time.")]
        self.recent.extend(told)
        return told

    @property
    def lost_at(self) -> float | None:
        """Since when there is no connection to the broker."""
        return self._lost_at

    def losses(self, now: float) -> int:
        """How often the connection to the broker was lost lately."""
        return sum(now - at <= _LATELY for at in self._losses)

    def reconnections(self, worker: str, now: float) -> int:
        """How often a worker has come back to the broker lately."""
        return sum(now - at <= _LATELY for at in self._reconnected.get(worker, ()))

    def went(self, worker: str) -> tuple[float, bool] | None:
        """When a worker was seen to go, and whether it had said that it would."""
        return self._gone.get(worker)

    def _of_the_broker(self, *, is_up: bool, now: float) -> Iterator[Event]:
        if not is_up and self._lost_at is None:
            self._lost_at = now
            self._losses.append(now)
            yield Event(now, "bad", "The connection to the broker is lost.")
        elif is_up and self._lost_at is not None:
            yield Event(now, "good", f"The connection to the broker is back after {now - self._lost_at:.0f} s.")
            self._lost_at = None

    def _of_a_worker(self, name: str, before: _Known | None, after: _Known | None, now: float) -> Iterator[Event]:
        worker = named(name)
        if after is None:
            self._gone.pop(name, None)
            self._reconnected.pop(name, None)
            yield Event(now, "neutral", f"{worker} was forgotten.")
            return
        was = None if before is None else before.presence
        if after.presence is not None and after.presence != was:
            yield from self._of_its_presence(name, was, after.presence, now)
        if before is None:
            return
        for part, word in after.parts.items():
            old = before.parts.get(part, "")
            if word != old and not (word in FINE and old in FINE):
                good = word in FINE
                words = "is well again" if good else f"is {word}{_meaning(word)}"
                yield Event(now, "good" if good else "bad", f"{part} of {worker} {words}.")

    def _of_its_presence(self, name: str, was: Presence | None, now_is: Presence, now: float) -> Iterator[Event]:
        worker, state = named(name), now_is.state
        before, after = (None if one is None else one.instance for one in (was, now_is))
        if state == "offline":
            if was is not None and was.state != "offline":
                is_expected = was.state == "draining"
                self._gone[name] = (now, is_expected)
                yield Event(now, "neutral" if is_expected else "bad", f"{worker} {_parting(is_expected=is_expected)}.")
            return
        self._gone.pop(name, None)
        if was is None or was.state == "offline":
            yield Event(now, "good", f"{worker} came: it is {state}{_serving(now_is)}.")
        elif before is not None and after is not None and before.mark != after.mark:
            yield Event(now, "neutral", f"{worker} was started again: it is {state}.")
        elif was.state != state:
            yield Event(now, "good" if state == "ready" else "neutral", f"{worker} is {_STATES[state]}.")
        if before is not None and after is not None and _is_connected_again(before, after):
            self._reconnected.setdefault(name, deque(maxlen=_CONNECTIONS)).append(now)
            yield Event(now, "bad", f"{worker} had lost the broker, and is connected again.")


def _is_connected_again(before: Instance, after: Instance) -> bool:
    return before.mark == after.mark and after.connection > before.connection


_STATES: Final = {
    "loading": "loading its model",
    "ready": "ready",
    "draining": "draining: it finishes what it has, and takes no more",
    "offline": "gone",
}


def named(text: str) -> str:
    """A stranger's name as a part of a sentence."""
    line = shown_in_line(text)
    return line if len(line) <= _LETTERS else f"{line[:_LETTERS]}…"


def _parting(*, is_expected: bool) -> str:
    return "has ended" if is_expected else "is gone without a word: it was killed, or has lost its connection"


def _serving(presence: Presence) -> str:
    return f", with {named(presence.model)}" if presence.model else ""


def _meaning(word: str) -> str:
    return f": {STATE_MEANINGS[word]}" if word in STATE_MEANINGS else ""


def _known(view: WorkerView) -> _Known:
    """Of a worker that has gone its parts are nobody's business."""
    if view.is_gone:
        return _Known(view.presence)
    models = view.stats.models if view.stats is not None else {}
    parts = {f"Model {named(name)}": named(model.state) for name, model in models.items()}
    for model in models.values():
        for name, slot in model.slots.items():
            is_well = slot.state in FINE
            parts[f"Slot {named(name)}"] = named(slot.breaker if is_well else slot.state)
    return _Known(view.presence, parts)
