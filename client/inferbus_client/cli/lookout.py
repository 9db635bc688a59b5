"""Looks out for who serves the project that we ask."""

from __future__ import annotations

import threading
import time
from typing import Final

from inferbus_client.client import Client
from inferbus_client.contract.presence import Presence
from inferbus_client.errors import BrokerError
from inferbus_client.exchange.announced import ready_for, serves
from inferbus_client.settings.sources import nearest
from inferbus_client.shown import shown_in_line

#: How long the broker may take with what it has retained, once it has granted the subscription.
_GATHER: Final = 0.5
_TICK: Final = 0.02
#: Workers in one line.
_NAMED: Final = 5


class Lookout:
    """What the workers on the bus say of themselves, over the client's own connection."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._begun = False
        self._hears = False

    def look(self) -> None:
        """Begin, and wait until somebody serves us or nobody can be expected to."""
        self._begin()
        deadline = time.monotonic() + _GATHER
        while self._hears and not self._ready() and time.monotonic() < deadline:
            time.sleep(_TICK)

    def begin(self) -> None:
        """Begin, without waiting for the broker."""
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._begin, name="lookout", daemon=True).start()

    def words(self, model: str | None = None) -> str:
        """Who serves us, as one line; empty while that is not known, as where the broker does not let us hear it.

        Args:
            model: which one is to answer; None: as the project says.
        """
        try:
            return self._words(model) if self._hears else ""
        except BrokerError:  # the connection is lost for good: whoever asks something is told why
            return ""

    def _words(self, model: str | None) -> str:
        project = self._client.settings.project
        if ready := self._ready():
            return shown_in_line(", ".join(self._which(one, model) for one in ready[:_NAMED]))
        others = [self._why_not(one) for one in self._client.workers().values() if project in one.projects]
        reasons = f" ({', '.join(others[:_NAMED])})" if others else ""
        return shown_in_line(f"no worker serves {project}{reasons}: see `inferbus doctor`")

    def lines(self) -> list[str]:
        """Each worker that serves the project, or once did, on a line of its own."""
        project = self._client.settings.project
        found = self._client.workers().values() if self._hears else ()
        return [
            shown_in_line(f"{one.worker}: {one.state}, {one.model or 'no model yet'}")
            for one in found
            if project in one.projects
        ]

    def models(self) -> list[str]:
        """Each model of those who serve us now, and its state, where they have several."""
        presences = self._client.workers().values() if self._hears else ()
        found = {
            name: state for one in ready_for(self._client.settings, presences) for name, state in one.models.items()
        }
        return [shown_in_line(f"{name} ({state})") for name, state in found.items()]

    def _why_not(self, presence: Presence) -> str:
        if serves(presence, self._client.settings):
            return f"{presence.worker} is {presence.state}"
        return f"{presence.worker} does so with --identity {presence.identity}"

    def _begin(self) -> None:
        self._begun = True
        try:
            self._client.workers()
        except BrokerError:
            return
        self._hears = True

    def _ready(self) -> list[Presence]:
        return ready_for(self._client.settings, self._client.workers().values())

    def _which(self, presence: Presence, model: str | None) -> str:
        """What will answer there, as far as it tells: of several models it names the default of its first project."""
        states, worker = presence.models, presence.worker
        named = f"{', '.join(list(states)[:_NAMED])}{' and more' if len(states) > _NAMED else ''}"
        if model is not None and states and model not in states:
            return f"{worker} has no model {model} (it has {named}){nearest(model, states)}"
        if model is None and len(states) > 1 and presence.projects[:1] != (self._client.settings.project,):
            return f"one of {named} on {worker}"
        name = model or presence.model
        state = states.get(str(name), "ready")
        return f"{name}{'' if state == 'ready' else f' ({state})'} on {worker}"
