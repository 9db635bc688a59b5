"""Where the store is that workers share, from one URL: a Redis or Valkey, alone, behind Sentinels, or a Cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args
from urllib.parse import quote, unquote

from pydantic import PlainSerializer, PlainValidator, SecretStr

from inferbus_client.settings.sources import nearest
from inferbus_worker.settings.masking import STARS

Kind = Literal["single", "unix", "sentinel", "cluster"]
Address: TypeAlias = tuple[str, int]

#: Each scheme: what it leads to, and whether that is encrypted.
_SCHEMES: Final[dict[str, tuple[Kind, bool]]] = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "unix": ("unix", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_PORTS: Final[dict[Kind, int]] = dict.fromkeys(get_args(Kind), 6379) | {"sentinel": 26379}
_URL: Final = re.compile(
    r"(?P<scheme>[^:/?#@]*)://(?:(?P<named>[^/?#]*)@)?(?P<hosts>[^/?#]*)(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?"
)
_HOST: Final = re.compile(r"[\w.-]+")
_ADDRESS: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?")
_DATABASE: Final = re.compile(r"[0-9]{1,5}")
_LARGEST_PORT: Final = 65_535
_TLS_FILES: Final = ("cafile", "cert", "key")
_SENTINELS: Final = ("sentinel_username", "sentinel_password")
_QUOTE: Final = "in a user or a password, write %40 for @, %2F for /, %3A for :, %3F for ? and %23 for #"


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A parsed URL. Printed, it has stars for its passwords.

    Attributes:
        addresses: host and port; of Sentinels, or of nodes of a Cluster, any that are known. Empty for a socket.
        path: of the socket.
        service: what the Sentinels call the servers that they watch.
        sentinel: user and password at the Sentinels, where they ask for one.
    """

    kind: Kind
    tls: bool = False
    addresses: tuple[Address, ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    username: str | None = None
    password: SecretStr | None = None
    sentinel: tuple[str | None, SecretStr | None] = (None, None)
    cafile: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __str__(self) -> str:
        """The URL, masked: what it names is in it, and nobody gets in with it."""
        user = "" if self.username is None else quote(self.username, safe="")
        named = f"{user}:{STARS}@" if self.password is not None else f"{user}@" if user else ""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.addresses)
        query = "&".join(self._query())
        return f"{self.scheme}://{named}{hosts}{self._path()}{f'?{query}' if query else ''}"

    @property
    def scheme(self) -> str:
        return next(name for name, meant in _SCHEMES.items() if meant == (self.kind, self.tls))

    def with_password(self, password: SecretStr) -> StoreUrl:
        return replace(self, password=password)

    def _path(self) -> str:
        match self.kind:
            case "single":
                return f"/{self.db}"
            case "unix":
                return quote(self.path)
            case "sentinel":
                return f"/{quote(self.service, safe='')}"
        return ""

    def _query(self) -> Iterator[str]:
        if self.db and self.kind != "single":
            yield f"db={self.db}"
        user, password = self.sentinel
        if user is not None:
            yield f"sentinel_username={quote(user, safe='')}"
        if password is not None:
            yield f"sentinel_password={STARS}"
        for name in _TLS_FILES:
            if (file := getattr(self, name)) is not None:
                yield f"{name}={quote(str(file))}"

    @classmethod
    def parse(cls, text: str) -> StoreUrl:
        """Parse a URL.

        Raises:
            ValueError: with one sentence that says what is wrong; it never repeats the URL, nor a part of it that
                might be a password's.
        """
        match = _URL.fullmatch(text.strip())
        scheme = text.strip().partition("://")[0]
        if scheme not in _SCHEMES:
            guess = nearest(scheme, _SCHEMES) if re.fullmatch(r"[a-z+]{1,20}", scheme) else ""
            raise ValueError(f"must start with {_either([f'{name}://' for name in _SCHEMES])}{guess}")
        if match is None or "@" in (match["path"] or ""):
            raise ValueError(f"must end with what stands behind the hosts; {_QUOTE}")
        kind, tls = _SCHEMES[scheme]
        query = _parameters(match["query"], kind, tls=tls)
        username, password = _credentials(match["named"])
        path = _text(match["path"] or "")
        found = cls(
            kind,
            tls,
            () if kind == "unix" else tuple(_addresses(match["hosts"], kind)),
            username=username,
            password=password,
            db=_database(query["db"]) if "db" in query else 0,
            sentinel=_sentinel(query),
            cafile=_file(query, "cafile"),
            cert=_file(query, "cert"),
            key=_file(query, "key"),
        )
        if found.key is not None and found.cert is None:
            raise ValueError("has a key and no cert: it belongs to a certificate")
        return found._leading_to(path, match["hosts"], says_db="db" in query)

    def _leading_to(self, path: str, hosts: str, *, says_db: bool) -> StoreUrl:
        """With what stands behind the hosts, which each kind reads in its own way."""
        name = path.strip("/")
        match self.kind:
            case "unix":
                if hosts or not name:
                    raise ValueError("must hold the whole path of the socket: unix:///run/redis/redis.sock")
                return replace(self, path=path)
            case "sentinel":
                if not name or "/" in name:
                    raise ValueError("must say what the Sentinels call their servers: redis+sentinel://HOST,HOST/NAME")
                return replace(self, service=name)
            case "cluster":
                if name or says_db:
                    raise ValueError("must end with the hosts: a Cluster has no databases by number")
                return self
        if name and says_db:
            raise ValueError("must name its database once: redis://HOST/0 or redis://HOST?db=0")
        return replace(self, db=_database(name)) if name else self


def _either(names: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _text(quoted: str) -> str:
    try:
        text = unquote(quoted, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("holds bytes that are no text") from None
    if "\0" in text:
        raise ValueError("holds a NUL")
    return text


def _credentials(named: str | None) -> tuple[str | None, SecretStr | None]:
    if named is None:
        return None, None
    user, colon, password = named.partition(":")
    if colon and not password:
        raise ValueError("has a : and no password behind it")
    return _text(user) or None, SecretStr(_text(password)) if colon else None


def _addresses(hosts: str, kind: Kind) -> Iterator[Address]:
    if not hosts:
        raise ValueError("names no host")
    several = hosts.split(",")
    if len(several) > 1 and kind == "single":
        raise ValueError(
            "names several hosts: say redis+sentinel://HOST,HOST/NAME where these are Sentinels, or "
            "redis+cluster://HOST,HOST where they are a Cluster's nodes"
        )
    for one in several:
        match = _ADDRESS.fullmatch(one.strip())
        host = "" if match is None else match["host"]
        if match is None or not _is_host(host):
            raise ValueError(f"has no valid host and port where {_place(one, several)}stands; {_QUOTE}")
        port = _PORTS[kind] if match["port"] is None else int(match["port"])
        if not 0 < port <= _LARGEST_PORT:
            raise ValueError("has a port that is no number from 1 to 65535")
        yield host.strip("[]"), port


def _place(one: str, several: list[str]) -> str:
    return "its only one " if len(several) == 1 else f"number {several.index(one) + 1} of {len(several)} "


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return _HOST.fullmatch(host) is not None
    try:
        IPv6Address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _database(text: str) -> int:
    if _DATABASE.fullmatch(text) is None:
        raise ValueError("has a database that is no number, such as 0")
    return int(text)


def _parameters(query: str | None, kind: Kind, *, tls: bool) -> dict[str, str]:
    """What stands behind the question mark; of that which has no meaning there, only the name is repeated."""
    known = ["db", *(_SENTINELS if kind == "sentinel" else ()), *(_TLS_FILES if tls else ())]
    found: dict[str, str] = {}
    for pair in filter(None, (query or "").split("&")):
        name, equals, value = pair.partition("=")
        if name in _TLS_FILES and not tls:
            raise ValueError(f"has a {name}, and is not encrypted; say redis{'s' * (kind != 'unix')}://")
        if name not in known:
            if not equals or re.fullmatch(r"\w{1,30}", name) is None:
                raise ValueError(f"has something behind its ? that is no NAME=VALUE; {_QUOTE}")
            raise ValueError(f"cannot have {name} behind its ?, only {_either(known)}{nearest(name, known)}")
        if not value or name in found:
            raise ValueError(f"must say {name} once, with a value")
        found[name] = _text(value)
    return found


def _sentinel(query: Mapping[str, str]) -> tuple[str | None, SecretStr | None]:
    password = query.get("sentinel_password")
    return query.get("sentinel_username"), None if password is None else SecretStr(password)


def _file(query: Mapping[str, str], name: str) -> Path | None:
    return Path(query[name]) if name in query else None


def _read(value: Any) -> StoreUrl:
    if isinstance(value, StoreUrl):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a URL such as redis://127.0.0.1:6379/0")  # noqa: TRY004 - pydantic takes these alone
    return StoreUrl.parse(value)


#: A setting that is such a URL; it is masked wherever it is shown or written.
Store = Annotated[StoreUrl, PlainValidator(_read), PlainSerializer(str)]
