"""What a store says of itself: its version, who it is, and what becomes of what it has been told."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from inferbus_client.units import format_size
from inferbus_worker.settings.store_url import Kind
from inferbus_worker.state.errors import StoreAwayError, StoreRefusedError

#: The first version that has all that the scripts use; Valkey began with more.
LEAST: Final = (6, 2)
#: What to do about `Facts.eviction`.
NO_EVICTION: Final = "Say maxmemory-policy noeviction in the store's configuration."
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

    @property
    def memory(self) -> str | None:
        """What it may use, in words; None where its user may not ask."""
        if self.maxmemory is None:
            return None
        return f"maxmemory {format_size(self.maxmemory) if self.maxmemory else 'not bounded'}"

    @property
    def eviction(self) -> str | None:
        """A sentence where it throws away what workers rely on, or would if its memory were bounded."""
        if self.policy is None or self.memory is None or self.policy == "noeviction":
            return None
        return f"{self.memory}, maxmemory-policy {self.policy}: it throws away what workers rely on, without a word"


def facts_of(ask: Callable[..., Any]) -> Facts:
    """Find them out.

    Args:
        ask: sends one command; its answer, or the exception that stands for an error.
    """
    said = rows_of(ask("INFO"))
    before = time.time()
    clock = ask("TIME")
    middle = (before + time.time()) / 2
    config = ask("CONFIG", "GET", "appendfsync")
    version = said.get("redis_version", "")
    match = _VERSION.match(version)
    name = "Valkey" if "valkey_version" in said else "Redis"
    return Facts(
        server=f"{name} {said.get('valkey_version', version) or 'of a version that it does not say'}",
        version=None if match is None else (int(match[1]), int(match[2])),
        mode=said.get("redis_mode", said.get("server_mode")),
        is_replica=said.get("role") == "slave",
        replicas=int(said.get("connected_slaves", 0)),
        appendonly=None if "aof_enabled" not in said else said["aof_enabled"] == "1",
        appendfsync=config[1].decode() if isinstance(config, list) and config else None,
        maxmemory=int(said["maxmemory"]) if "maxmemory" in said else None,
        policy=said.get("maxmemory_policy"),
        skew=int(clock[0]) + int(clock[1]) / 1e6 - middle if isinstance(clock, list) else None,
    )


def rows_of(info: object) -> dict[str, str]:
    """The fields of an answer to INFO; none where it is an error."""
    rows = info.decode(errors="replace").splitlines() if isinstance(info, bytes) else []
    return dict(row.partition(":")[::2] for row in rows if ":" in row)


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
