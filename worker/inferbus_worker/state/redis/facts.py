"""What a store says of itself: its version, who it is, and what becomes of what it has been told."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from inferbus_worker.settings.store_url import Kind
from inferbus_worker.state.errors import StoreAwayError, StoreRefusedError

if TYPE_CHECKING:
    from redis import Redis

#: The first version that has all that the scripts use; Valkey began with more.
LEAST: Final = (6, 2)
_VERSION: Final = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known; what the store's user may not ask for is None.

    Attributes:
        server: its name and version, for people.
        version: as it speaks, which of Valkey is a Redis's.
        mode: `standalone`, `sentinel` or `cluster`.
        is_replica: whether it takes no writes.
        replicas: how many follow it now.
        appendonly: whether it writes down what it is told.
        appendfsync: when that reaches the disk: `always`, `everysec` or `no`.
        maxmemory: bytes, 0: any.
        policy: what it does where these are used up.
        skew: seconds by which its clock is ahead of this host's.
    """

    server: str
    version: tuple[int, int] | None
    mode: str | None
    is_replica: bool
    replicas: int
    appendonly: bool | None
    appendfsync: str | None
    maxmemory: int | None
    policy: str | None
    skew: float | None


def facts_of(client: Redis) -> Facts:
    """Ask it.

    Raises:
        RedisError: it cannot be asked anything.
    """
    said = _allowed(client, "INFO") or {}
    before = time.time()
    clock = _allowed(client, "TIME")
    middle = (before + time.time()) / 2
    config = _allowed(client, "CONFIG GET", "appendfsync") or {}
    version = str(said.get("redis_version", ""))
    match = _VERSION.match(version)
    name = "Valkey" if "valkey_version" in said else "Redis"
    return Facts(
        server=f"{name} {said.get('valkey_version', version) or 'of a version that it does not say'}",
        version=None if match is None else (int(match[1]), int(match[2])),
        mode=said.get("redis_mode", said.get("server_mode")),
        is_replica=said.get("role") == "slave",
        replicas=int(said.get("connected_slaves", 0)),
        appendonly=None if "aof_enabled" not in said else bool(said["aof_enabled"]),
        appendfsync=_text(config.get(b"appendfsync", config.get("appendfsync"))),
        maxmemory=said.get("maxmemory"),
        policy=said.get("maxmemory_policy"),
        skew=None if clock is None else clock[0] + clock[1] / 1e6 - middle,
    )


def check(facts: Facts, place: str, kind: Kind) -> None:
    """That it is one to keep state in.

    Raises:
        StoreError: it is not; in one sentence.
    """
    if facts.version is not None and facts.version < LEAST:
        least = ".".join(map(str, LEAST))
        raise StoreRefusedError(f"{place} is {facts.server}; it must be {least} or newer, or any Valkey")
    if facts.mode == "sentinel":
        raise StoreRefusedError(f"{place} is a Sentinel, which keeps nothing: say redis+sentinel://HOST/NAME")
    if facts.mode == "cluster" and kind != "cluster":
        raise StoreRefusedError(f"{place} is a node of a Cluster: say redis+cluster://")
    if facts.is_replica and kind in {"single", "unix"}:
        raise StoreRefusedError(f"{place} is a replica, and takes no writes: name the one that it follows")
    if facts.is_replica:
        raise StoreAwayError(f"{place} is a replica now, and takes no writes")


def _allowed(client: Redis, command: str, *args: str) -> Any:
    """What it answers; None where this user may not ask, or there is nothing of that name."""
    import redis  # noqa: PLC0415

    try:
        return client.execute_command(command, *args)
    except redis.AuthenticationError:
        raise
    except redis.ResponseError as error:
        if str(error).startswith("NOAUTH"):
            raise
        return None


def _text(value: bytes | str | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else value
