"""What a server is asked before it serves: whether it is well, what it serves, how long a prompt may be."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from inferbus_worker.engines.base import BackendError, EngineStartError
from inferbus_worker.engines.remote.connections import Connections
from inferbus_worker.engines.remote.errors import listed
from inferbus_worker.engines.remote.place import RemotePlace
from inferbus_worker.engines.remote.row import Told, figure

#: Seconds that one question may take.
_PATIENCE: Final = 10.0
_OK: Final = 200
_DENIED: Final = frozenset({401, 403})
_UNKNOWN: Final = frozenset({404, 405})
_REDIRECTS: Final = range(300, 400)
_LONGEST_NAME: Final = 200


class Served(NamedTuple):
    """What a server says of itself. `context` and `capacity` are None where it does not, `names` empty."""

    model: str
    context: int | None
    capacity: int | None
    names: Sequence[str] = ()


async def ask_around(place: RemotePlace, connections: Connections) -> Served:
    """Ask all that has to be known before the first call.

    Raises:
        EngineStartError: it cannot be used as it is; a sentence for the operator.
    """
    row = place.row
    if row.health is not None:
        status, _ = await _reach(place, connections, row.health)
        if status in _UNKNOWN:
            raise _wrong_kind(place, row.health)
        if status != _OK and status not in _DENIED:
            raise EngineStartError(f"{_who(place)} is not well yet: {row.health} answers {status}.")
    model, names = place.model or row.unnamed or "", list[str]()
    if row.models is not None:
        model, names = await _model(place, connections, row.models)
    contexts = [await figure_told(connections, told, model) for told in row.context]
    capacity = None if row.capacity is None else await figure_told(connections, row.capacity, model)
    return Served(model, next((each for each in contexts if each), None), capacity, names)


async def figure_told(connections: Connections, told: Told, model: str) -> int | None:
    """A figure that the server tells; None where it does not."""
    try:
        async with asyncio.timeout(_PATIENCE):
            status, answer = await connections.ask(told.path, None if told.asks is None else told.asks(model))
        return figure(told.read(answer, model)) if status == _OK else None
    except asyncio.CancelledError:
        raise
    except Exception:  # noqa: BLE001 - a stranger's answer; whatever is wrong with it, the figure is not known
        return None


async def _model(place: RemotePlace, connections: Connections, path: str) -> tuple[str, list[str]]:
    """What to call the model there, and the names of all that the server has."""
    row = place.row
    status, answer = await _reach(place, connections, path)
    if status in _DENIED:
        raise _denied(place, status)
    if status in _REDIRECTS:
        raise EngineStartError(f"{_who(place)} leads elsewhere ({status}); give the url where it leads.")
    if status == _OK:
        names = _names(answer)
        if names is None:
            raise _wrong_kind(place, path)
    elif status in _UNKNOWN:
        if not row.one_model:
            raise _wrong_kind(place, path)
        names = []
    else:
        raise EngineStartError(f"{_who(place)} is not well yet: {path} answers {status}.")
    if place.model is None:
        if row.unnamed is None and not names:
            raise EngineStartError(f"{_who(place)} serves no model; load one there, or name it here (model).")
        return row.unnamed or names[0], names
    known = {*names, *(name.removesuffix(":latest") for name in names)}
    if not row.one_model and place.model not in known:
        raise EngineStartError(f"{_who(place)} knows no model {place.model}; it serves {listed(names) or 'none'}.")
    return place.model, names


def _names(answer: Any) -> list[str] | None:
    """The names of the models that a list holds; None: it is no such list."""
    data = answer.get("data") if isinstance(answer, dict) else None
    if data is None and isinstance(answer, dict) and "data" in answer:
        return []  # Ollama's, while it has none
    if not isinstance(data, list):
        return None
    names = [one.get("id") for one in data if isinstance(one, dict)]
    return [name for name in names if isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME]


async def _reach(place: RemotePlace, connections: Connections, path: str) -> tuple[int, Any]:
    import httpx2  # noqa: PLC0415

    try:
        async with asyncio.timeout(_PATIENCE):
            return await connections.ask(path)
    except (TimeoutError, httpx2.TimeoutException):
        raise EngineStartError(f"{_who(place)} does not answer; is it that server, and is it up?") from None
    except httpx2.ConnectError as error:
        raise _unreached(place, error) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, BackendError) as error:
        raise EngineStartError(
            f"{_who(place)} does not speak HTTP as it should ({type(error).__name__}); is the url right?"
        ) from None


def _unreached(place: RemotePlace, error: BaseException) -> EngineStartError:
    """Nothing came of a connection; what to do about it depends on where it was to lead."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return EngineStartError(
                f"No address is known here for the name in {place.shown_url}: mend url, or the network."
            )
        cause = cause.__cause__ or cause.__context__
    if place.row.managed is None and not place.is_here:  # a service of somebody else's
        remedy = "mend url, or this machine's way there (network, proxy)"
    else:
        remedy = f"start {place.row.label}, or mend url"
    return EngineStartError(f"Nobody answers at {place.shown_url}: {remedy}.")


def _denied(place: RemotePlace, status: int) -> EngineStartError:
    if place.key is None and place.user is None:
        return EngineStartError(f"{_who(place)} wants a key ({status}): set api_key_env or api_key_file.")
    mend = "the user in url" if place.key is None else "what api_key_env or api_key_file names"
    return EngineStartError(f"{_who(place)} refuses our key ({status}): mend {mend}.")


def _wrong_kind(place: RemotePlace, path: str) -> EngineStartError:
    return EngineStartError(
        f"What listens at {place.shown_url} is not {place.row.label}: it does not know {path}; mend backend or url."
    )


def _who(place: RemotePlace) -> str:
    return f"{place.row.label} at {place.shown_url}"
