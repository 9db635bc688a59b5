"""Where a model is served: projects and models by the workers' presence, and who of them goes while it is asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from inferbus_client.contract.presence import Presence
from inferbus_client.exchange.announced import Announced, serves
from inferbus_client.gateway.errors import RefusedError
from inferbus_client.gateway.keys import ApiKey
from inferbus_client.settings.client import ClientSettings

#: Seconds after which to ask again where the worker is loading or away, or the broker is.
BACK: Final = 5.0
_LISTED: Final = "; GET /v1/models lists what there is."


class Place(NamedTuple):
    """Where a request goes.

    Attributes:
        project: whose topics.
        model: which of its models; None: its own.
        name: what the request calls it.
    """

    project: str
    model: str | None
    name: str


@dataclass(eq=False)
class _Asked:
    """A request under way: which runs of which workers may have it, and what ends its waiting."""

    runs: Mapping[str, str | None]
    loop: asyncio.AbstractEventLoop
    gone: asyncio.Event


class Places:
    """What may be asked, by presence, which may come from any thread. All else is for one event loop.

    Args:
        announced: what the workers say.
        settings: how we reach them.
    """

    def __init__(self, announced: Announced, settings: ClientSettings) -> None:
        self._announced = announced
        self._settings = settings
        self._lock = threading.Lock()
        self._under_way: set[_Asked] = set()
        announced.on_presence(self._heard)

    # --- who serves what ---

    @property
    def identity(self) -> str:
        """Whether there is a user in the topics that we ask on, as `--identity` says it."""
        return self._settings.identity

    def serving(self, project: str) -> list[Presence]:
        """The workers that serve a project or will, those that are ready first."""
        everybody = self._announced.presences.values()
        found = [one for one in everybody if one.state != "offline" and serves(one, self._settings, project)]
        return sorted(found, key=lambda one: one.state != "ready")

    def is_any_ready(self) -> bool:
        """Whether a worker is ready whose topics are those that we ask on."""
        return any(
            one.state == "ready" and any(serves(one, self._settings, project) for project in one.projects)
            for one in self._announced.presences.values()
        )

    def models(self, key: ApiKey | None) -> Iterator[dict[str, Any]]:
        """What `/v1/models` lists, for whoever has this key."""
        names = {project for one in self._announced.presences.values() for project in one.projects}
        for project in sorted(names):
            if (key is None or key.may_use(project)) and (workers := self.serving(project)):
                for name in (project, *(f"{project}/{model}" for model in _choices(workers[0], project))):
                    yield _listed(name, workers[0])

    def find(self, name: object, key: ApiKey | None) -> Place:
        """Where the model of this name is served; without a name, the gateway's own project.

        Raises:
            RefusedError: nowhere, or not for this key, or not now.
        """
        if not isinstance(name, str | None):
            raise RefusedError(400, "invalid_request", "model: must be a text.", param="model")
        asked = name or self._settings.project
        project, slash, model = asked.partition("/")
        unknown = RefusedError(
            404, "model_not_found", f"model: there is no {asked[:128]!r} here{_LISTED}", param="model"
        )
        if key is not None and not key.may_use(project):
            raise unknown
        workers = self.serving(project)
        if not workers:
            if any(serves(one, self._settings, project) for one in self._announced.presences.values()):
                raise RefusedError.failed("engine_unavailable", "The worker is away.", retry_after=BACK)
            raise unknown
        if slash and not any(model in _choices(one, project) for one in workers):
            raise unknown
        if workers[0].state != "ready":
            doing = "shutting down" if workers[0].state == "draining" else "loading"
            raise RefusedError.failed("engine_unavailable", f"The worker is {doing}.", retry_after=BACK)
        return Place(project, model or None, asked)

    # --- who goes meanwhile ---

    @contextmanager
    def asked(self, project: str) -> Iterator[asyncio.Event]:
        """While inside, the event tells that every worker which may have the request is gone."""
        runs = {one.worker: _mark(one) for one in self.serving(project) if one.state == "ready"}
        asked = _Asked(runs, asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._under_way.add(asked)
        try:
            yield asked.gone
        finally:
            with self._lock:
                self._under_way.discard(asked)

    def _heard(self, _worker: str, _presence: Presence | None) -> None:
        presences = self._announced.presences
        with self._lock:
            for asked in self._under_way:
                if asked.runs and not any(_lives(presences.get(name), mark) for name, mark in asked.runs.items()):
                    asked.loop.call_soon_threadsafe(asked.gone.set)


def _choices(presence: Presence, project: str) -> Sequence[str]:
    """The models that a project's requests may name. Where there is but one, its worker does not say whose it is."""
    return presence.choices.get(project, tuple(presence.models) if len(presence.models) == 1 else ())


def _listed(name: str, presence: Presence) -> dict[str, Any]:
    """A model in a list: OpenAI's keys, and Anthropic's beside them."""
    created = int(presence.since or 0)
    at = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ours = {"id": name, "object": "model", "created": created, "owned_by": presence.worker}
    return {**ours, "type": "model", "display_name": name, "created_at": at}


def _mark(presence: Presence) -> str | None:
    return None if presence.instance is None else presence.instance.mark


def _lives(presence: Presence | None, mark: str | None) -> bool:
    """Whether it is still that run of the worker."""
    return presence is not None and presence.state != "offline" and (mark is None or _mark(presence) == mark)
