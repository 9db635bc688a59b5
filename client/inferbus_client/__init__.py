"""Talk to a language model over MQTT.

    from inferbus_client import Client

    with Client("mqtt://127.0.0.1:1883", project="general") as client:
        print(client.ask("Hello").text)

`Client` is for threads, `AsyncClient` for an event loop; `errors` draws the tree of exceptions. Each name is loaded
when it is first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inferbus_client.aio import AsyncClient, AsyncStream
    from inferbus_client.answer import Answer
    from inferbus_client.client import Client, Stream
    from inferbus_client.client_settings import ClientSettings
    from inferbus_client.errors import (
        BrokerError,
        BrokerRefusedError,
        BrokerUnreachableError,
        ClientClosedError,
        ConnectionLostError,
        DeadlineExceededError,
        EngineFailedError,
        IdTakenError,
        InferbusError,
        InvalidRequestError,
        MessageRefusedError,
        NotConnectedError,
        RateLimitedError,
        RequestCancelledError,
        RequestFailedError,
        RequestTimeoutError,
        SessionBusyError,
        UnavailableError,
    )
    from inferbus_client.options import AskOptions
    from inferbus_client.settings import SettingsError
    from inferbus_client.wire import Delta

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AskOptions",
    "AsyncClient",
    "AsyncStream",
    "BrokerError",
    "BrokerRefusedError",
    "BrokerUnreachableError",
    "Client",
    "ClientClosedError",
    "ClientSettings",
    "ConnectionLostError",
    "DeadlineExceededError",
    "Delta",
    "EngineFailedError",
    "IdTakenError",
    "InferbusError",
    "InvalidRequestError",
    "MessageRefusedError",
    "NotConnectedError",
    "RateLimitedError",
    "RequestCancelledError",
    "RequestFailedError",
    "RequestTimeoutError",
    "SessionBusyError",
    "SettingsError",
    "Stream",
    "UnavailableError",
    "__version__",
]

_HOMES = {
    "Answer": "answer",
    "AskOptions": "options",
    "AsyncClient": "aio",
    "AsyncStream": "aio",
    "Client": "client",
    "ClientSettings": "client_settings",
    "Delta": "wire",
    "SettingsError": "settings",
    "Stream": "client",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
