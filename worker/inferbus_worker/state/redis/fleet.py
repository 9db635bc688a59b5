"""Who is in a group, and how much of everything there is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from inferbus_worker.state.redis.calls import Call
from inferbus_worker.state.redis.plan import lane_name
from inferbus_worker.state.redis.scripted import SCHEMA, Scripted, nothing, schema_key

#: Milliseconds after which a life of ours that beats no more is over.
_SILENT_MS: Final = 2000
#: A worker that has not been heard of for so many leases is no more.
_BEATS: Final = 3


class Member(NamedTuple):
    """A worker of the group.

    Attributes:
        worker: its name.
        instance: which of its lives.
        info: what it says of itself.
        beat_age: seconds since it last said so.
    """

    worker: str
    instance: str
    info: bytes
    beat_age: float


class Group(NamedTuple):
    """The group at one moment.

    Attributes:
        now_ms: the store's clock.
        workers: that beat.
        queued: how many wait in each lane.
        leases: how many jobs somebody holds.
        sessions: how many are kept.
        models: of each model the requests that are being answered, and the slots, of all workers together.
        mark: tells it from a group of the same name in another store.
    """

    now_ms: int
    workers: Sequence[Member]
    queued: Mapping[str, int]
    leases: int
    sessions: int
    models: Mapping[str, tuple[int, int]]
    mark: str


class Sizes(NamedTuple):
    """How much of everything the store has of a group.

    Attributes:
        sessions: that are kept.
        history_bytes: what their histories take, about.
        queued: how many wait in each lane.
        leases: how many jobs somebody holds.
        held: the same by the names of the workers that beat.
        unconfirmed: how many wait to be confirmed; `queued` has them too.
    """

    sessions: int
    history_bytes: int
    queued: Mapping[str, int]
    leases: int
    held: Mapping[str, int]
    unconfirmed: int


class Fleet(Scripted):
    """See `RedisGroup`."""

    def beat(self, info: bytes, models: Mapping[str, tuple[int, int]], mark: str | None = None) -> Call[Group]:
        """Say that this worker lives.

        Args:
            info: what it says of itself.
            models: of each that it serves the requests that are being answered, and the slots.
            mark: the group's, as far as it is known, for a store that has forgotten it.
        """
        texts = json.dumps(models, ensure_ascii=False, separators=(",", ":"))
        ttl = _BEATS * self._lease_ms
        said = (self.instance, self._worker, info, texts, ttl, mark or self.instance)
        return self._call("beat", *said, read=_read_group)

    def schema(self) -> tuple[Call[None], Call[str]]:
        """Say how this worker writes, unless somebody has said so before; and hear how it is."""
        key = schema_key(self._group)
        return Call("SETNX", (key,), (SCHEMA,), nothing), Call("GET", (key,), (), lambda said: said.decode())

    def ring(self) -> Call[None]:
        """Wake this worker, which sleeps on its own bell."""
        return self._call("ring", self.instance, read=nothing)

    def leave(self) -> Call[None]:
        """Beat no more."""
        return self._call("leave", self.instance, read=nothing)

    def sizes(self) -> Call[Sizes]:
        return self._call("sizes", read=_read_sizes)

    def drop_lane(self, project: str, model: str, most: int = 1000) -> Call[int]:
        """Forget what waits in a lane, `most` of it; how much that was. Nobody answers it."""
        return self._call("drop_lane", lane_name(project, model), most, read=int)

    def drop_leases(self, worker: str) -> Call[int]:
        """Take from a worker, by its name or one instance's mark, all that it holds, for others; how much that was."""
        return self._call("drop_leases", worker, 0, read=int)

    def inherit(self) -> Call[int]:
        """Let go what earlier lives of this worker have left behind. One that is heard of yet is a rival, and lives."""
        return self._call("drop_leases", self._worker, _SILENT_MS, read=int)


def _read_group(answer: Any) -> Group:
    now_ms, rows, queued, leases, sessions, mark = answer
    models: dict[str, tuple[int, int]] = {}
    for *_, served in rows:
        for model, (active, slots) in json.loads(served).items():
            before = models.get(model, (0, 0))
            models[model] = before[0] + active, before[1] + slots
    members = [Member(worker.decode(), instance.decode(), info, age / 1000) for worker, instance, info, age, _ in rows]
    return Group(now_ms, members, _read_counts(queued), leases, sessions, models, mark.decode())


def _read_sizes(answer: Any) -> Sizes:
    sessions, history_bytes, queued, leases, held, unconfirmed = answer
    return Sizes(sessions, history_bytes, _read_counts(queued), leases, _read_counts(held), unconfirmed)


def _read_counts(flat: Sequence[Any]) -> dict[str, int]:
    """Names and counts by turns; those of one name are added up."""
    counts: dict[str, int] = {}
    for name, count in zip(flat[::2], flat[1::2], strict=True):
        counts[name.decode()] = counts.get(name.decode(), 0) + int(count)
    return counts
