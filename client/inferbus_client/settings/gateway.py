"""The settings of the gateway: how it reaches the broker, as every client, and what it serves over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from inferbus_client.errors import ConflictError
from inferbus_client.settings.client import ClientSettings, check_project
from inferbus_client.units import Duration, Patience, Size, split
from inferbus_client.web.listening import is_loopback, listening_at

#: What a browser calls a page's home.
_SCHEMES: Final = ("http://", "https://")


def _check_origins(origins: list[str]) -> list[str]:
    for origin in origins:
        scheme = next((scheme for scheme in _SCHEMES if origin.startswith(scheme)), None)
        if scheme is None or "/" in origin.removeprefix(scheme) or not origin.removeprefix(scheme):
            raise ValueError(f"{origin!r} is no origin: it must be as https://app.example.org")
    return origins


class GatewaySettings(ClientSettings):
    """An OpenAI-shaped door to the bus, for `inferbus gateway`."""

    project: Annotated[str, AfterValidator(check_project)] = Field(
        "general",
        description="The project of requests that name no model.",
        json_schema_extra={"metavar": "NAME"},
    )
    listen: Annotated[str, BeforeValidator(listening_at)] = Field(
        "127.0.0.1:8080",
        description="Where it serves HTTP; PORT alone is one on 127.0.0.1. Elsewhere it needs --api-keys.",
        json_schema_extra={"metavar": "[HOST:]PORT"},
    )
    api_keys: Path | None = Field(
        None,
        description="The file of the keys that callers need; `inferbus keys` writes it.",
        json_schema_extra={"default": "none", "metavar": "FILE"},
    )
    cors_origins: Annotated[list[str], BeforeValidator(split), AfterValidator(_check_origins)] = Field(
        default_factory=list,
        description="Other sites whose pages may call it from a browser, as https://app.example.org.",
        json_schema_extra={"flags": ["--cors-origin"], "metavar": "ORIGIN"},
    )
    max_requests: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1024, description="Requests under way at once; more are overloaded."
    )
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = Field(
        4096, description="HTTP connections at once; of those that ask for nothing the oldest is closed."
    )
    max_body_bytes: Annotated[Size, Field(ge=64, le=256_000_000)] = Field(
        2 * 1024 * 1024,
        description="Largest body of a request.",
        json_schema_extra={"default": "2 MiB", "metavar": "SIZE"},
    )
    max_held_bytes: Annotated[Size, Field(ge=65536)] = Field(
        64 * 1024 * 1024,
        description="Bodies of the requests under way together; more are overloaded.",
        json_schema_extra={"default": "64 MiB", "metavar": "SIZE"},
    )
    timeout: Patience = Field(
        600.0,
        description="How long a whole answer may take.",
        json_schema_extra={"flags": ["-W"], "metavar": "TIME", "default": "10m"},
    )
    drain_timeout: Duration = Field(
        30.0,
        description="How long requests under way may take to end at shutdown.",
        json_schema_extra={"default": "30s", "metavar": "TIME"},
    )

    @model_validator(mode="after")
    def _is_nobodys_but_by_key(self) -> Self:
        if self.api_keys is None and not is_loopback(self.listen):
            raise ConflictError(
                f"--listen {self.listen} is open to others: it needs --api-keys FILE (`inferbus keys add` makes one)",
                *("listen", "api_keys"),
            )
        return self
