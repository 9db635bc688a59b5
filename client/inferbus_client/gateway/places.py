"""Where a model is served: projects and models by the workers' presence, and who of them goes while it is asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence
from inferbus_client.exchange.announced import Announced, is_reached, serves
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


class _Run(NamedTuple):
    """One run of a worker that may have a request, and who takes that over when it goes: the others of its group."""

    mark: str | None
    group: str | None

    @classmethod
    def of(cls, presence: Presence) -> _Run:
        return cls(_mark(presence), presence.group)


@dataclass(eq=False)
class Asked:
    """A request under way.

    Attributes:
        project: whose it is.
        runs: of which workers may have it.
        end: why its waiting ends.
    """

    project: str
    runs: Mapping[str, _Run]
    loop: asyncio.AbstractEventLoop
    end: asyncio.Future[RefusedError]
    places: Places

    def taken_by(self, worker: str | None) -> None:
        """It says so itself; who joined after the request was sent says nothing new. For the event loop."""
        if worker is not None and worker in self.runs:
            self.runs = {worker: self.runs[worker]}
            self.places.look_after(self)  # it may be gone already

    @property
    def is_shared(self) -> bool:
        """Whether a group has it."""
        return any(run.group is not None for run in self.runs.values())

    def tell(self, why: RefusedError) -> None:
        """End it, once; from any thread."""
        self.loop.call_soon_threadsafe(lambda: None if self.end.done() else self.end.set_result(why))


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
        self._under_way: set[Asked] = set()
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
        found: dict[str, Presence] = {}
        # Each is looked at once, however many of them a stranger has announced.
        for one in self._announced.presences.values():
            if one.state != "offline" and is_reached(one, self._settings):
                for project in one.projects:
                    if project not in found or found[project].state != "ready" == one.state:
                        found[project] = one
        for project, worker in sorted(found.items()):
            if topics.is_project(project) and (key is None or key.may_use(project)):
                for name in (project, *(f"{project}/{model}" for model in _choices(worker, project))):
                    yield _listed(name, worker)

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
    def asked(self, project: str) -> Iterator[Asked]:
        """While inside, its `end` tells why there is no answer: all who may have the request are gone, or we go."""
        # By the ids in the topics, which a broker may protect; what an announcement calls itself is a word.
        presences = self._announced.presences.items()
        ready = {name: one for name, one in presences if one.state == "ready" and serves(one, self._settings, project)}
        runs = {name: _Run.of(one) for name, one in ready.items()}
        loop = asyncio.get_running_loop()
        asked = Asked(project, runs, loop, loop.create_future(), self)
        with self._lock:
            self._under_way.add(asked)
        self.look_after(asked)  # who has gone before is told of by nobody any more
        try:
            yield asked
        finally:
            with self._lock:
                self._under_way.discard(asked)

    def end(self) -> None:
        """Whatever is under way ends; from any thread."""
        with self._lock:
            under_way = list(self._under_way)
        for asked in under_way:
            asked.tell(RefusedError.failed("shutting_down", "The gateway is shutting down."))

    def _heard(self, worker: str, _presence: Presence | None) -> None:
        with self._lock:
            concerned = [asked for asked in self._under_way if worker in asked.runs or asked.is_shared]
        self.look_after(*concerned)

    def look_after(self, *under_way: Asked) -> None:
        """End those whom nobody is left to answer; from any thread."""
        if not under_way:
            return
        presences = self._announced.presences
        # Each is looked at once, however many requests are under way.
        groups = {
            (one.group, project)
            for one in presences.values()
            if one.group is not None and one.state != "offline" and is_reached(one, self._settings)
            for project in one.projects
        }
        for asked in under_way:
            if asked.runs and not any(
                _lives(presences.get(name), run.mark) if run.group is None else (run.group, asked.project) in groups
                for name, run in asked.runs.items()
            ):
                asked.tell(RefusedError.failed("engine_unavailable", "The worker has gone."))


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
