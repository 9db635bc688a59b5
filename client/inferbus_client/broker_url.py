"""Where the broker is, from one URL: `mqtt://`, `mqtts://`, `ws://`, `wss://`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}


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
        return self.scheme in {"ws", "wss"}

    def __str__(self) -> str:
        user = f"{self.username}@" if self.username else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{user}{host}:{self.port}{self.path if self.websockets else ''}"

    @classmethod
    def parse(cls, url: str) -> BrokerUrl:
        """Parse a URL.

        Raises:
            ValueError: with one sentence that says what is wrong; it never repeats a password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError("the broker URL has no valid host and port") from None
        if parts.scheme not in _PORTS:
            raise ValueError("the broker URL must start with mqtt://, mqtts://, ws:// or wss://")
        if not parts.hostname:
            raise ValueError("the broker URL names no host")
        if parts.password is not None:
            raise ValueError("the broker URL must not hold a password; set INFERBUS_PASSWORD or the password file")
        return cls(
            scheme=parts.scheme,
            host=parts.hostname,
            port=_PORTS[parts.scheme] if port is None else port,
            username=unquote(parts.username) if parts.username else None,
            path=parts.path if parts.path not in {"", "/"} else "/mqtt",
        )
