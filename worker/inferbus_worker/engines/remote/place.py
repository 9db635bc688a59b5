"""Where a remote engine's server is, and the key for it, which nobody gets to see."""

from __future__ import annotations

import base64
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from inferbus_client.errors import SettingsError
from inferbus_client.shown import shown_in_line
from inferbus_worker.engines.remote.backends import BACKENDS
from inferbus_worker.engines.remote.row import BackendRow
from inferbus_worker.settings.models import Backend, SlotSettings, check_url
from inferbus_worker.settings.vllm_options import typed

#: No key is longer; a file that is, is another one.
_LONGEST_KEY: Final = 16_384
#: Connections to one server at once, where its slot does not take more requests than that.
CONNECTIONS: Final = 50


@dataclass(frozen=True)
class RemotePlace:
    """A server across the network, and what of it is asked for.

    Attributes:
        backend: which kind of server it is.
        url: where it listens. May hold a name and a password, and so is not shown; see `shown_url`.
        model: how the server calls the model; None: the first that it says it serves.
        key: what the server wants to see.
        options: what goes into each request besides.
        context: the longest prompt and answer in tokens; None: as the server tells.
        name: of the slot, for the log.
        connections: at once, at most.
    """

    backend: Backend
    url: str = field(repr=False)
    model: str | None = None
    key: SecretStr | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    context: int | None = None
    name: str = ""
    connections: int = CONNECTIONS

    @property
    def row(self) -> BackendRow:
        return BACKENDS[self.backend]

    @property
    def address(self) -> str:
        """The server's root, without a trailing slash, the shape's base, or whoever is named in it."""
        parts = urlsplit(self.url)
        path = parts.path.rstrip("/").removesuffix(self.row.base)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"

    @property
    def shown_url(self) -> str:
        """The address for logs and messages: no name, password or query."""
        return shown_in_line(self.address)

    @property
    def user(self) -> tuple[str, str] | None:
        """Name and password in the address, if there are any."""
        parts = urlsplit(self.url)
        if parts.username is None and parts.password is None:
            return None
        return unquote(parts.username or ""), unquote(parts.password or "")

    @property
    def basic(self) -> str | None:
        """The same as HTTP's header has them."""
        return None if self.user is None else base64.b64encode(":".join(self.user).encode()).decode()

    @property
    def is_here(self) -> bool:
        """Whether the server is on this machine, to which no proxy leads."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")


def remote_place(slot: SlotSettings, *, model: str, name: str, url: str | None = None) -> RemotePlace:
    """Where the server of `slot` is. Reads its key.

    Args:
        slot: one with a backend.
        model: our name of the model, which is the server's too where nothing else is said.
        name: of the slot, for the log.
        url: where a server listens that the worker has started itself.

    Raises:
        SettingsError: the address is none, or there is no key where it was said to be.
    """
    if slot.backend is None:
        raise ValueError("this slot has no backend")
    row = BACKENDS[slot.backend]
    address = url or slot.url or row.url
    _check_url(address, name)
    concurrency = slot.concurrency if isinstance(slot.concurrency, int) else row.concurrency
    return RemotePlace(
        slot.backend,
        address,
        slot.model or (None if row.one_model else model),
        _key(slot, name),
        MappingProxyType({key: typed(value) for key, value in slot.options.items()}),
        slot.context,
        name,
        max(CONNECTIONS, concurrency),
    )


def _check_url(url: str, name: str) -> None:
    try:
        check_url(url)
    except ValueError as error:
        raise SettingsError(f"{name}: url {error}") from None


def _key(slot: SlotSettings, name: str) -> SecretStr | None:
    if slot.api_key_env is not None:
        key = os.environ.get(slot.api_key_env, "").strip()
        if not key:
            # Some keys could be names, too: what does not look like one is not repeated.
            named = slot.api_key_env if slot.api_key_env.isupper() else "a variable"
            raise SettingsError(f"{name}: api_key_env names {named}, which is not set in the environment; set it")
        source = f"the environment variable {slot.api_key_env}"
    elif slot.api_key_file is not None:
        key = _read_key(slot.api_key_file, name)
        source = f"the file {slot.api_key_file}"
    else:
        return None
    if not key.isascii() or not key.isprintable() or len(key) > _LONGEST_KEY:
        raise SettingsError(f"{name}: {source} holds no key: it must be one line of printable ASCII")
    return SecretStr(key)


def _read_key(path: Path, name: str) -> str:
    try:
        with path.expanduser().open("rb") as file:
            key = file.read(_LONGEST_KEY + 1).decode("ascii", "replace").strip()
    except (OSError, RuntimeError) as error:
        words = getattr(error, "strerror", None) or "there is no such home"
        raise SettingsError(f"{name}: api_key_file {path} cannot be read: {words}") from None
    if not key:
        raise SettingsError(f"{name}: api_key_file {path} is empty; write the key into it")
    return key
