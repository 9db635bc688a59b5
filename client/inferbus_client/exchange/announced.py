"""Which workers there are, by their own word, and whether one of them serves us."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence, Stats, decode_announcement
from inferbus_client.mqtt.message import Incoming
from inferbus_client.settings.client import ClientSettings

#: Workers that are remembered: on a bus where anyone may announce one, there must be a bound.
MAX_WORKERS: Final = 1000
#: Bytes that all that is remembered takes, about: what was said, and so many more for each name in it.
MAX_BYTES: Final = 32 * 1024 * 1024
_NAME_BYTES: Final = 1000
_GRAIN: Final = 1024
#: A larger presence is none of ours.
_MAX_BYTES: Final = 65536
#: Names in one sentence.
_NAMED: Final = 5
#: Readings that are kept of each, and for how many seconds: what lies between the oldest and the latest is "now".
_READINGS: Final = 10
_NOW: Final = 15.0

Changed = Callable[[str, Presence | None], None]


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What is known of one worker.

    Attributes:
        presence: what it last said of its state.
        readings: its figures of the last seconds, oldest first; at least the latest, once there has been one.
        stats_at: when that came, on the monotonic clock.
        presence_bytes: what the presence takes.
        readings_bytes: what each of the readings does.
    """

    presence: Presence | None = None
    readings: tuple[Stats, ...] = ()
    stats_at: float | None = None
    presence_bytes: int = 0
    readings_bytes: tuple[int, ...] = ()

    @property
    def bytes(self) -> int:
        """What all of it takes."""
        return self.presence_bytes + sum(self.readings_bytes)

    @property
    def shortened(self) -> WorkerView:
        """The same with the latest figures alone."""
        return replace(self, readings=self.readings[-1:], readings_bytes=self.readings_bytes[-1:])

    @property
    def stats(self) -> Stats | None:
        """Its latest figures; None until the first come."""
        return self.readings[-1] if self.readings else None

    @property
    def is_gone(self) -> bool:
        """Whether it has said so itself, or its Last Will has."""
        return self.presence is not None and self.presence.state == "offline"

    def has_answered(self, asked: float) -> bool:
        """Whether figures have come since somebody asked for them."""
        return self.stats_at is not None and self.stats_at >= asked


class Announced:
    """Collects presences and stats as they come; thread-safe.

    Whoever has gone makes room for who is there, and earlier figures for later ones; then what is new is not noted.

    Args:
        max_workers: that are remembered.
        clock: monotonic seconds.
        max_bytes: that they may take.
    """

    def __init__(
        self,
        max_workers: int = MAX_WORKERS,
        clock: Callable[[], float] = time.monotonic,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._max_workers = max_workers
        self._max_bytes = max_bytes
        self._bytes = 0
        self._clock = clock
        self._changed = threading.Condition()
        self._workers: dict[str, WorkerView] = {}
        self._on_presence: list[Changed] = []

    @property
    def workers(self) -> dict[str, WorkerView]:
        """Every worker heard of so far, by id."""
        with self._changed:
            return dict(sorted(self._workers.items()))

    @property
    def presences(self) -> dict[str, Presence]:
        """What each worker last said of its state, by its id."""
        with self._changed:
            return {name: view.presence for name, view in self._workers.items() if view.presence is not None}

    def on_presence(self, changed: Changed) -> None:
        """Let `changed` hear of each presence that comes, and with None of one that was cleared; where it came."""
        self._on_presence.append(changed)

    def received(self, message: Incoming) -> bool:
        """Note an announcement; False where the message is none."""
        if not topics.is_announcement(message.topic):
            return False
        worker, _, kind = message.topic.split("/", 2)[-1].partition("/")
        with self._changed:
            view = self._workers.get(worker, _UNKNOWN)
            after = self._updated(view, kind, message.payload)
            if after is None:
                self._forget(worker)
            elif after is not view:
                after = self._noted(worker, view, after)
            elif view is _UNKNOWN:  # nobody can read it, but an operator may remove it
                self._noted(worker, view, WorkerView())
            self._changed.notify_all()
        presence = None if after is None else after.presence
        if presence is not view.presence:
            for changed in self._on_presence:
                changed(worker, presence)
        return True

    def wait_for(self, condition: Callable[[dict[str, WorkerView]], bool], timeout: float) -> bool:
        """Wait until `condition` holds of what is known, at most `timeout` seconds; returns whether it does."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self._workers), timeout)

    def questions(self) -> list[str]:
        """Where anything that is published asks for stats: a topic for each worker that may live."""
        alive = [worker for worker, view in self.workers.items() if not view.is_gone]
        return [topics.stats_request(worker) for worker in alive if topics.is_worker(worker)]

    def answered(self, asked: float, timeout: float, names: Collection[str] | None = None) -> bool:
        """Wait for the answers to what was asked at a time, of these workers or of all; whether they have come."""

        def all_have(workers: dict[str, WorkerView]) -> bool:
            views = workers.values() if names is None else [workers[name] for name in names if name in workers]
            return all(view.is_gone or view.has_answered(asked) for view in views)

        return self.wait_for(all_have, timeout)

    def _noted(self, worker: str, view: WorkerView, after: WorkerView) -> WorkerView:
        """What is known of a worker then: what is new, as far as there is room for it."""
        if after.presence is not None and not after.is_gone:
            gone = (name for name, one in list(self._workers.items()) if one.is_gone or one.presence is None)
            while not self._has_room(view, after) and (name := next(gone, None)) is not None:
                if name != worker:
                    self._forget(name)
        for fitting in (after, after.shortened):
            if self._has_room(view, fitting):
                self._workers[worker] = fitting
                self._bytes += fitting.bytes - view.bytes
                return fitting
        return view

    def _has_room(self, view: WorkerView, after: WorkerView) -> bool:
        more = after.bytes - view.bytes
        is_full = view is _UNKNOWN and len(self._workers) >= self._max_workers
        return not is_full and (more <= 0 or self._bytes + more <= self._max_bytes)

    def _forget(self, worker: str) -> None:
        self._bytes -= self._workers.pop(worker, _UNKNOWN).bytes

    def _updated(self, view: WorkerView, kind: str, payload: bytes) -> WorkerView | None:
        if kind == "stats":
            stats = decode_announcement(Stats, payload)
            return view if stats is None else _with(view, stats, _bytes(payload, _names_of(stats)), self._clock())
        # An empty retained message clears the topic: an operator has removed a worker that will not come back.
        if not payload:
            return None
        presence = decode_announcement(Presence, payload) if len(payload) <= _MAX_BYTES else None
        if presence is None:
            return view
        names = len(presence.projects) + len(presence.models) + sum(map(len, presence.choices.values()))
        return replace(view, presence=presence, presence_bytes=_bytes(payload, names))


_UNKNOWN: Final = WorkerView()


def _with(view: WorkerView, stats: Stats, size: int, now: float) -> WorkerView:
    """The view with one reading more; those of an earlier run of the worker, and old ones, go."""
    kept = [
        (before, its)
        for before, its in zip(view.readings, view.readings_bytes, strict=True)
        if stats.uptime_s - _NOW <= before.uptime_s < stats.uptime_s
    ]
    readings, sizes = zip(*kept[-_READINGS + 1 :], (stats, size), strict=True)
    return replace(view, readings=readings, readings_bytes=sizes, stats_at=now)


def _names_of(stats: Stats) -> int:
    return len(stats.models) + sum(len(model.slots) for model in stats.models.values())


def _bytes(payload: bytes, names: int) -> int:
    """What an announcement takes in memory, about. Another word for its state is no difference."""
    return -(-len(payload) // _GRAIN) * _GRAIN + _NAME_BYTES * names


def ready_for(settings: ClientSettings, presences: Iterable[Presence]) -> list[Presence]:
    """Those that are ready to answer on the topics that these settings lead to."""
    return [one for one in presences if one.state == "ready" and serves(one, settings)]


def why_nobody(settings: ClientSettings, presences: Iterable[Presence]) -> tuple[str, str]:
    """Why none is ready for us, and what to do about it."""
    found = list(presences)
    serving = [one for one in found if settings.project in one.projects]
    if not found:
        return "no worker has announced itself on this broker", "Start one there with `inferbus serve`."
    if ours := [one for one in serving if serves(one, settings)]:
        remedy = _NONE_ANSWERS if _none_answers(ours[0]) else _STATES[ours[0].state]
        return ", ".join(map(_state, ours[:_NAMED])), remedy
    if serving:
        return _another_identity(settings, serving[0])
    others = sorted({name for one in found for name in one.projects})
    named = ", ".join(others[:_NAMED]) + (" and more" if len(others) > _NAMED else "")
    return (
        f"no worker serves {settings.project}; those on this broker serve {named or 'nothing'}",
        "Give another one with --project, or start a worker that serves this one.",
    )


def _state(presence: Presence) -> str:
    if _none_answers(presence):
        return f"{presence.worker} is {presence.state}, and none of its models answers"
    return f"{presence.worker} is {presence.state}"


def _none_answers(presence: Presence) -> bool:
    """Whether there is nothing to wait for but that somebody mends what its models are served by."""
    states = set(presence.models.values())
    return presence.state == "loading" and states == {"unavailable"}


_NONE_ANSWERS: Final = "The worker's log says why; it goes on trying."
_STATES: Final = {
    "ready": "",
    "loading": "Wait until it is ready; `inferbus status` shows when.",
    "draining": "It takes nothing new: wait for it to come back, or start another.",
    "offline": "Start it again; the end of its log says why it went.",
}


def serves(presence: Presence, settings: ClientSettings, project: str | None = None) -> bool:
    """Whether it serves the topics that these settings lead to, now or later. One that does not say, may.

    Another `project` may be meant than the settings' own.
    """
    return (project or settings.project) in presence.projects and is_reached(presence, settings)


def is_reached(presence: Presence, settings: ClientSettings) -> bool:
    """Whether its topics are like those that these settings lead to."""
    return presence.identity in {None, settings.identity}


def _another_identity(settings: ClientSettings, presence: Presence) -> tuple[str, str]:
    project = settings.project
    if settings.identity == "none":
        return (
            f"{presence.worker} serves {project} with the user in the topics ({project}/users/…), we ask without one",
            "Give --identity topic, and the login with --username.",
        )
    return (
        f"{presence.worker} serves {project} without a user in the topics, we ask with one",
        "Leave --identity out, or start the worker with --identity topic.",
    )
