"""The page: one document, its style and its modules, served as they lie in the package. Nothing else is reached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from importlib import resources
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

_SCRIPT: Final = "text/javascript; charset=utf-8"
_MODULES: Final = (
    *(
        "api",
        "app",
        "bus",
        "chat",
        "dom",
        "inline",
        "markdown",
        "messages",
        "pictures",
        "plots",
        "sessions",
        "settings",
    ),
    "talk",
)
#: All that there is: where it is served, the file, its kind.
_FILES: Final = (
    ("/", "index.html", "text/html; charset=utf-8"),
    ("/page/style.css", "style.css", "text/css; charset=utf-8"),
    ("/page/icon.svg", "icon.svg", "image/svg+xml"),
    *((f"/page/{name}.mjs", f"{name}.mjs", _SCRIPT) for name in _MODULES),
)
#: What a browser may do with it: run our modules, ask this server, show what is dropped into it.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Asked for each time, and sent again where it has changed.
    "cache-control": "no-cache",
}


def page_routes(check: Callable[[Headers], None]) -> list[Route]:
    """Routes for the page and its files. They need no key: there is nothing in them.

    Args:
        check: raises where somebody may not even see these.
    """
    from starlette.routing import Route  # noqa: PLC0415

    folder = resources.files("inferbus_client.gateway").joinpath("page")
    return [
        Route(path, _file(folder.joinpath(name).read_bytes(), kind, check), methods=["GET"])
        for path, name, kind in _FILES
    ]


def _file(content: bytes, kind: str, check: Callable[[Headers], None]) -> Callable[[Request], Awaitable[Response]]:
    tag = f'"{sha256(content).hexdigest()[:32]}"'

    async def serve(request: Request) -> Response:
        from starlette.responses import Response  # noqa: PLC0415

        check(request.headers)
        headers = {**_HEADERS, "etag": tag}
        known = (one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(","))
        if tag in known:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=kind)

    return serve
