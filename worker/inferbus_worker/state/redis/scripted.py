"""What every part of a group's calls rests on: its prefix, and a script as a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from inferbus_worker.state.redis.bids import milliseconds, short
from inferbus_worker.state.redis.calls import Argument, Call

T = TypeVar("T")

#: How all of this is written. Workers that write it differently share nothing, and say so.
SCHEMA: Final = "1"

#: What lies at the keys that each group has once, behind its prefix; see `scripts/common.lua`.
TYPES: Final = {
    **dict.fromkeys(("leases", "looks", "unconfirmed", "sessions", "workers"), "zset"),
    **dict.fromkeys(("lengths", "turns", "forms", "kept"), "hash"),
}


class Scripted:
    """One worker instance in a group.

    Args:
        group: workers of one group share everything, those of two nothing.
        instance: one life of a worker; unique.
        worker: its name.
        lease: seconds that a job is held without being renewed.
        session_ttl: seconds that a session is kept after its last turn.

    Attributes:
        instance: as it was given.
        prefix: of every key of the group but the histories; its hash tag keeps them in one slot.
    """

    def __init__(self, group: str, instance: str, worker: str, *, lease: float, session_ttl: float) -> None:
        self.prefix = f"inferbus:{SCHEMA}:{{{group}}}:"
        self._group = group
        self.instance = instance
        self._worker = worker
        self._lease_ms = milliseconds(lease)
        self._session_ms = milliseconds(session_ttl)

    def bell(self, model: str) -> str:
        """The list to sleep on for a model's work."""
        return f"{self.prefix}bell:{model}"

    @property
    def own_bell(self) -> str:
        """The list to sleep on for what waits for this worker."""
        return self.bell(f"worker:{self.instance}")

    def _call(self, script: str, *args: Argument, read: Callable[[Any], T]) -> Call[T]:
        return Call(script, (self.prefix,), args, read)

    def _session(self, session: str) -> str:
        return f"{self.prefix}session:{short(session)}"

    def _history(self, session: str) -> str:
        # One hash tag for all of it, whatever braces a name has: histories spread over the nodes.
        name = f"{self._group}/{short(session)}".replace("{", "%7B").replace("}", "%7D")
        return f"inferbus:1:history:{{{name}}}"


def schema_key(group: str) -> str:
    """Where a group says how it writes: from its first worker on, whatever else it has or not."""
    return f"inferbus:{{{group}}}:schema"


def nothing(_: Any) -> None:
    """The answer says nothing."""
