"""Health, metrics and figures over HTTP, from a thread that waits for nothing of the worker's.

`/healthz`: the process lives. `/readyz`: it answers requests now; else 503, and what is missing. `/metrics`: for
Prometheus. `/api/queue-status`, `/api/health`, `/api/stats`: JSON.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from inferbus_client.contract.presence import Stats
from inferbus_client.errors import SettingsError
from inferbus_client.web.server import WebServer, bearer_is
from inferbus_worker.ops.metrics import exposition
from inferbus_worker.settings.worker import Settings

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_TOKEN_BYTES: Final = 4096
_LEAST: Final = 8

#: Reads the figures as they stand, from any thread.
Figures = Callable[[], Stats]
#: What keeps the worker from answering, in words; empty: it answers.
Missing = Callable[[], Sequence[str]]
Endpoint = Callable[["Request"], Awaitable["Response"]]


def make_http(settings: Settings, figures: Figures, missing: Missing, threads: Callable[[], int]) -> WebServer | None:
    """The worker's HTTP side, not yet started; None where the settings ask for none.

    Args:
        settings: the worker's.
        figures: see there.
        missing: see there.
        threads: how many worker threads there are.

    Raises:
        SettingsError: nobody can listen there, or the token cannot be read.
    """
    if settings.http is None:
        return None
    token = None if settings.http_token_file is None else _read_token(settings.http_token_file)
    try:
        return WebServer(_app(_Pages(figures, missing, threads), token), settings.http, "http")
    except ModuleNotFoundError as error:
        raise SettingsError(f"--http needs {error.name}: pip install 'inferbus-worker[http]'") from None


def _app(pages: _Pages, token: bytes | None) -> Starlette:
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    endpoints: dict[str, Endpoint] = {
        "/healthz": pages.healthz,
        "/readyz": pages.readyz,
        "/metrics": _behind(token, pages.metrics),
        "/api/queue-status": _behind(token, pages.queue_status),
        "/api/health": _behind(token, pages.health),
        "/api/stats": _behind(token, pages.stats),
    }
    routes = [Route(path, endpoint) for path, endpoint in endpoints.items()]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False  # it would go wherever the requester's Host says
    return app


class _Pages:
    def __init__(self, figures: Figures, missing: Missing, threads: Callable[[], int]) -> None:
        self._figures = figures
        self._missing = missing
        self._threads = threads

    async def healthz(self, _request: Request) -> Response:
        return _json({"status": "ok"})

    async def readyz(self, _request: Request) -> Response:
        lacks = list(self._missing())
        return _json({"ready": not lacks, "missing": lacks}, 503 if lacks else 200)

    async def metrics(self, _request: Request) -> Response:
        from starlette.responses import Response  # noqa: PLC0415

        text, kind = exposition(self._figures(), is_ready=not self._missing(), threads=self._threads())
        return Response(text, media_type=kind)

    async def queue_status(self, _request: Request) -> Response:
        stats = self._figures()
        return _json({"activeRequests": stats.active, "queuedRequests": stats.queued, "maxConcurrent": stats.capacity})

    async def health(self, _request: Request) -> Response:
        lacks, stats = list(self._missing()), self._figures()
        return _json(
            {
                "status": "unhealthy" if lacks else "healthy",
                "missing": lacks,
                "worker": stats.worker,
                "uptimeS": stats.uptime_s,
                "models": {name: model.state for name, model in stats.models.items()},
            },
            503 if lacks else 200,
        )

    async def stats(self, _request: Request) -> Response:
        from starlette.responses import Response  # noqa: PLC0415

        return Response(self._figures().encode(), media_type="application/json")


def _behind(token: bytes | None, endpoint: Endpoint) -> Endpoint:
    """The endpoint, for whoever has the token."""
    if token is None:
        return endpoint

    async def guarded(request: Request) -> Response:
        if bearer_is(request.headers, token):
            return await endpoint(request)
        refusal = _json({"error": "a bearer token is needed"}, 401)
        refusal.headers["www-authenticate"] = "Bearer"
        return refusal

    return guarded


def _json(value: Mapping[str, Any], status: int = 200) -> Response:
    from starlette.responses import JSONResponse  # noqa: PLC0415

    return JSONResponse(value, status)


def _read_token(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            token = opened.read(_TOKEN_BYTES + 1).strip()
    except OSError as error:
        raise SettingsError(f"http_token_file: {file} cannot be read: {error.strerror}") from None
    if not _LEAST <= len(token) <= _TOKEN_BYTES or not token.isascii() or b"\n" in token:
        raise SettingsError(f"http_token_file: {file} must hold one line of {_LEAST} characters or more")
    return token
