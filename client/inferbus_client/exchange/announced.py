"""Which workers there are, by their own word, and whether one of them serves us."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence, decode_announcement
from inferbus_client.mqtt.message import Incoming
from inferbus_client.settings.client import ClientSettings

#: Workers that are remembered: on a bus where anyone may announce one, there must be a bound.
_MAX_WORKERS: Final = 1000
#: A larger presence is none of ours.
_MAX_BYTES: Final = 65536
#: Names in one sentence.
_NAMED: Final = 5
_BEFORE, _BEHIND = topics.presence("+").split("+")


class Announced:
    """Collects presences as they come; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._presences: dict[str, Presence] = {}

    @property
    def presences(self) -> dict[str, Presence]:
        """What each worker last said, by its id."""
        with self._lock:
            return dict(self._presences)

    def received(self, message: Incoming) -> bool:
        """Note a presence; False where the message is none. An empty one is a worker that an operator has removed."""
        if not message.topic.startswith(_BEFORE) or not message.topic.endswith(_BEHIND):
            return False
        worker = message.topic.removeprefix(_BEFORE).removesuffix(_BEHIND)
        small = len(message.payload) <= _MAX_BYTES
        presence = decode_announcement(Presence, message.payload) if small else None
        with self._lock:
            if not message.payload:
                self._presences.pop(worker, None)
            elif presence is not None and (worker in self._presences or len(self._presences) < _MAX_WORKERS):
                self._presences[worker] = presence
        return True


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


def serves(presence: Presence, settings: ClientSettings) -> bool:
    """Whether it serves the topics that these settings lead to, now or later. One that does not say, may."""
    return settings.project in presence.projects and presence.identity in {None, settings.identity}


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
