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
    from inferbus_client.client import Client, Stream
    from inferbus_client.contract.wire import Delta
    from inferbus_client.contract.wire.messages import ToolCall
    from inferbus_client.errors import (
        AnswerChangedError,
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
        MisuseError,
        NotConnectedError,
        OptionTypeError,
        OptionValueError,
        RateLimitedError,
        RequestCancelledError,
        RequestFailedError,
        RequestTimeoutError,
        SessionBusyError,
        SettingsError,
        StreamInUseError,
        ToolError,
        ToolRoundsError,
        UnavailableError,
    )
    from inferbus_client.exchange.answer import Answer, Restarted
    from inferbus_client.exchange.options import AskOptions
    from inferbus_client.exchange.rejoining import rejoined
    from inferbus_client.settings.client import ClientSettings

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AnswerChangedError",
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
    "MisuseError",
    "NotConnectedError",
    "OptionTypeError",
    "OptionValueError",
    "RateLimitedError",
    "RequestCancelledError",
    "RequestFailedError",
    "RequestTimeoutError",
    "Restarted",
    "SessionBusyError",
    "SettingsError",
    "Stream",
    "StreamInUseError",
    "ToolCall",
    "ToolError",
    "ToolRoundsError",
    "UnavailableError",
    "__version__",
    "rejoined",
]

_HOMES = {
    "Answer": "exchange.answer",
    "AskOptions": "exchange.options",
    "AsyncClient": "aio",
    "AsyncStream": "aio",
    "Client": "client",
    "ClientSettings": "settings.client",
    "Delta": "contract.wire",
    "Restarted": "exchange.answer",
    "Stream": "client",
    "ToolCall": "contract.wire.messages",
    "rejoined": "exchange.rejoining",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
