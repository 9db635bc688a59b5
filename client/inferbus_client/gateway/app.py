"""The gateway's routes."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from inferbus_client.contract.presence import Presence
from inferbus_client.exchange.announced import Announced
from inferbus_client.fleet.figures import figures_of, together
from inferbus_client.gateway.door import Door, Rooms
from inferbus_client.gateway.errors import RefusedError
from inferbus_client.gateway.live import LiveFeed
from inferbus_client.gateway.page import page_routes
from inferbus_client.gateway.shapes import ANTHROPIC, OPENAI
from inferbus_client.shapes import openai_answer

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

#: Seconds that workers have to answer, and for which their answers are good enough.
_ANSWERS: Final = 1.5
_FRESH: Final = 1.0
_STATES: Final = ("loading", "ready", "draining", "offline")
#: What a browser is to make of whatever we say.
_SECURITY: Final = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}

Endpoint = Callable[["Request"], Awaitable["Response"]]


def make_app(rooms: Rooms, announced: Announced, origins: list[str]) -> ASGIApp:
    """The application. What is asked goes in by its door; the layers of the rest would cost as much as the asking.

    Args:
        rooms: what requests go through.
        announced: what the workers say of themselves.
        origins: other sites whose pages may ask.
    """
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.exceptions import HTTPException  # noqa: PLC0415
    from starlette.middleware.cors import CORSMiddleware  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    pages = _Pages(rooms, announced)
    feed = LiveFeed(
        lambda: announced.workers,
        lambda: rooms.client.is_connected,
        rooms.client.ask_for_stats,
        lambda: rooms.is_closing,
        may_look=rooms.visitors.may_look,
    )
    open_to_all: dict[str, Endpoint] = {"/healthz": pages.healthz, "/readyz": pages.readyz}
    for_keys: dict[str, Endpoint] = {"/v1/models": pages.models, "/v1/models/{name:path}": pages.model}
    for_operators: dict[str, Endpoint] = {
        "/metrics": pages.metrics,
        "/api/queue-status": pages.queue_status,
        "/api/health": pages.health,
        "/api/live": feed.endpoint,
    }
    doors: dict[str, ASGIApp] = {"/v1/chat/completions": Door(rooms, OPENAI), "/v1/messages": Door(rooms, ANTHROPIC)}
    routes = [
        *page_routes(rooms.visitors.check_page),
        *(Route(path, door, methods=["POST"]) for path, door in doors.items()),
        *(Route(path, endpoint) for path, endpoint in open_to_all.items()),
        *(Route(path, _behind(rooms, endpoint)) for path, endpoint in for_keys.items()),
        *(Route(path, _behind(rooms, endpoint, for_operators=True)) for path, endpoint in for_operators.items()),
    ]
    others = Starlette(routes=routes, exception_handlers={RefusedError: _refused, HTTPException: _not_found})
    others.router.redirect_slashes = False  # it would go wherever the requester's Host says

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        door = doors.get(scope["path"]) if scope["method"] == "POST" else None
        await (others if door is None else door)(scope, receive, send)

    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["x-request-id", "x-inferbus-reason", "x-inferbus-queue-position", "retry-after"],
    )


def _behind(rooms: Rooms, endpoint: Endpoint, *, for_operators: bool = False) -> Endpoint:
    """The endpoint, for whoever may come in."""

    async def guarded(request: Request) -> Response:
        request.state.key = rooms.visitors.check(request.headers, for_operators=for_operators)
        return await endpoint(request)

    return guarded


class _Pages:
    def __init__(self, rooms: Rooms, announced: Announced) -> None:
        self._rooms = rooms
        self._announced = announced
        self._asked = -_FRESH
        self._answers: asyncio.Task[bool] | None = None

    async def healthz(self, _request: Request) -> Response:
        return _json({"status": "ok"})

    async def readyz(self, _request: Request) -> Response:
        lacks = self._missing()
        return _json({"ready": not lacks, "missing": lacks}, 503 if lacks else 200)

    async def models(self, request: Request) -> Response:
        return _json({"object": "list", "data": list(self._rooms.places.models(request.state.key))})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        for model in self._rooms.places.models(request.state.key):
            if model["id"] == name:
                return _json(model)
        raise RefusedError(404, "model_not_found", f"There is no model {name[:128]!r} here.", param="model")

    async def metrics(self, _request: Request) -> Response:
        from starlette.responses import Response  # noqa: PLC0415

        text, kind = self._rooms.metrics.exposition()
        return Response(text, media_type=kind)

    async def queue_status(self, _request: Request) -> Response:
        """The workers' own figures, added up; null where none has told any."""
        await self._ask()
        known = [figures for view in self._announced.workers.values() if (figures := figures_of(view)) is not None]
        if not known:
            return _json({"activeRequests": None, "queuedRequests": None, "maxConcurrent": None})
        total = together(known)
        return _json({"activeRequests": total.active, "queuedRequests": total.queued, "maxConcurrent": total.capacity})

    async def health(self, _request: Request) -> Response:
        lacks = self._missing()
        workers = {
            name: {"state": one.state, "projects": one.projects, "models": one.models, "group": one.group}
            for name, one in sorted(self._announced.presences.items())
        }
        said = {"status": "unhealthy" if lacks else "healthy", "missing": lacks, "workers": workers}
        return _json(said, 503 if lacks else 200)

    def _missing(self) -> list[str]:
        """What keeps requests from being answered, in words."""
        rooms = self._rooms
        closing = ["the gateway is shutting down"] if rooms.is_closing else []
        if not rooms.client.is_connected:
            return [*closing, "there is no connection to the broker"]
        if rooms.places.is_any_ready():
            return closing
        if any(one.state == "ready" for one in self._announced.presences.values()):
            topics = f"--identity {rooms.places.identity}"
            return [*closing, f"the workers that are ready serve none of the topics of {topics}"]
        return [*closing, "no worker is ready"]

    async def _ask(self) -> None:
        """Ask the workers for figures, unless somebody just has; they answer once a second at most.

        All who want to know wait together, in one thread: there are few, and bodies are read in them.
        """
        now = time.monotonic()
        if self._answers is None or (self._answers.done() and now - self._asked >= _FRESH):
            self._asked = now
            self._rooms.client.ask_for_stats()
            self._answers = asyncio.create_task(asyncio.to_thread(self._announced.answered, now, _ANSWERS))
        await asyncio.shield(self._answers)


def workers_by_state(presences: Mapping[str, Presence]) -> dict[str, int]:
    """How many workers there are in each state."""
    return dict.fromkeys(_STATES, 0) | Counter(one.state for one in presences.values())


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)  # noqa: S101 - it is registered for these
    body = openai_answer.error(str(error), error.code, error.status, error.param)
    headers = {"x-inferbus-reason": error.code}
    return _json(body, error.status, headers | ({"www-authenticate": "Bearer"} if error.status == 401 else {}))  # noqa: PLR2004


async def _not_found(request: Request, error: Exception) -> Response:
    """There is no such path, or none for this method."""
    from starlette.exceptions import HTTPException  # noqa: PLC0415

    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for these
    is_path = error.status_code == 405  # noqa: PLR2004
    why = error.detail if is_path else "there is no such path; requests go to POST /v1/chat/completions or /v1/messages"
    code = "method_not_allowed" if is_path else "not_found"
    refused = RefusedError(error.status_code, code, f"{request.method} {request.url.path[:128]}: {why}.")
    shape = ANTHROPIC if request.url.path.startswith("/v1/messages") else OPENAI
    return _json(shape.error(refused, secrets.token_hex(12)), error.status_code, error.headers or {})


def _json(value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    from starlette.responses import JSONResponse  # noqa: PLC0415

    return JSONResponse(value, status, {**_SECURITY, **(headers or {})})
