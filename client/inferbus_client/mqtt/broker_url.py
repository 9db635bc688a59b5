"""Where the broker is, from a URL, or from several of which each is tried: `mqtt://`, `mqtts://`, `ws://`, `wss://`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from inferbus_client.contract.topics import is_mqtt_string

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_WEBSOCKETS: Final = {"ws", "wss"}
_HOST: Final = re.compile(r"[\w.-]+")
#: A comma may stand in a user or a path; between two URLs the next one's scheme follows.
_BETWEEN: Final = re.compile(r"\s*,\s*(?=[A-Za-z]+://)")
_PATH: Final = re.compile(r"/[^\s\x00-\x20\x7f]*")


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """A parsed broker URL. It never holds a password: a URL is printed, logged and seen in process lists.

    Attributes:
        path: the WebSocket path; "/mqtt" where the URL gives none.
    """

    scheme: str
    host: str
    port: int
    username: str | None = None
    path: str = "/mqtt"

    @property
    def tls(self) -> bool:
        return self.scheme in {"mqtts", "wss"}

    @property
    def websockets(self) -> bool:
        return self.scheme in _WEBSOCKETS

    def __str__(self) -> str:
        user = f"{quote(self.username, safe='')}@" if self.username else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{user}{host}:{self.port}{self.path if self.websockets else ''}"

    @classmethod
    def parse(cls, url: str) -> BrokerUrl:
        """Parse a URL. What `str` makes of the result is read as the same.

        Raises:
            ValueError: with one sentence that says what is wrong; it never repeats a password.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ValueError("the broker URL has no valid host and port") from None
        if parts.scheme not in _PORTS:
            raise ValueError("the broker URL must start with mqtt://, mqtts://, ws:// or wss://")
        if not parts.hostname:
            raise ValueError("the broker URL names no host")
        if parts.password is not None:
            raise ValueError("the broker URL must not hold a password; set INFERBUS_PASSWORD or the password file")
        port = _port(parts)
        if not _is_host(parts.hostname, bracketed="[" in parts.netloc):
            raise ValueError("the broker URL has no valid host")
        return cls(
            scheme=parts.scheme,
            host=parts.hostname,
            port=port,
            username=_user(parts.username) if parts.username else None,
            path=_path(parts),
        )


def parse_urls(urls: str) -> tuple[BrokerUrl, ...]:
    """The brokers of a list with commas between them, the one first that is tried first.

    Raises:
        ValueError: with one sentence that says what is wrong with which; it never repeats a password.
    """
    parts = _BETWEEN.split(urls.strip())
    found = []
    for place, part in enumerate(parts, 1):
        try:
            found.append(BrokerUrl.parse(part))
        except ValueError as error:
            raise ValueError(f"{error} (number {place} of {len(parts)})" if len(parts) > 1 else str(error)) from None
    _check_alike(found)
    return tuple(found)


def _check_alike(urls: Sequence[BrokerUrl]) -> None:
    """One connection goes to one after the other: as the same user, and in the same way."""
    if len({url.scheme for url in urls}) > 1:
        raise ValueError(f"the brokers must all be reached in one way, not by {_listed(url.scheme for url in urls)}")
    if len({url.username for url in urls}) > 1:
        raise ValueError("the broker URLs must all name the same user, or none (username says it for all)")
    if len(set(urls)) < len(urls):
        raise ValueError("the brokers name one twice")


def _listed(words: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(words))


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("the broker URL's port must be a number from 1 to 65535")
    return _PORTS[parts.scheme] if port is None else port


def _is_host(host: str, *, bracketed: bool) -> bool:
    if not bracketed:
        return _HOST.fullmatch(host) is not None
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def _user(quoted: str) -> str:
    try:
        user = unquote(quoted, errors="strict")
    except UnicodeDecodeError:
        user = "\0"
    if not is_mqtt_string(user):
        raise ValueError("the broker URL has a user that is no text")
    return user


def _path(parts: SplitResult) -> str:
    """The WebSocket path. Whatever else stands behind the host would be left out, or is half of a password."""
    if parts.query or parts.fragment or "@" in parts.path:
        raise ValueError("the broker URL must end with the port or a path; in a user, write %40 for @ and %2F for /")
    if parts.path in {"", "/"}:
        return "/mqtt"
    if parts.scheme not in _WEBSOCKETS:
        raise ValueError("the broker URL has a path, which only ws:// and wss:// have")
    if _PATH.fullmatch(parts.path) is None:
        raise ValueError("the broker URL has a path with spaces or control characters")
    return parts.path
