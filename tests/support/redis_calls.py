"""Sends calls to a real redis-server one by one, and lets the store's clock stand still."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import redis

from inferbus_worker.settings.projects import ProjectSettings
from inferbus_worker.state.redis.bids import Bid
from inferbus_worker.state.redis.calls import Call
from inferbus_worker.state.redis.group import RedisGroup
from inferbus_worker.state.redis.holdings import Committed, Confirmed, Ending, Taken, Written
from inferbus_worker.state.redis.scripts import sources
from inferbus_worker.state.redis.verdicts import Admitted, Verdict
from support.redis_server import RedisServer

T = TypeVar("T")

#: Where the standing clock stands; not under a group's prefix.
_CLOCK: Final = "clock"
#: Takes the place of the prelude that asks the server for the time.
_STANDING: Final = f"local function now() return tonumber(redis.call('GET', '{_CLOCK}')) end"
#: Any time will do; this one is as long as a real one.
_START_MS: Final = 1_700_000_000_000


class Store:
    """A store in which time passes only when a test says so."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._shas = {name: str(client.script_load(text)) for name, text in sources(_STANDING).items()}
        self.clear()

    def clear(self) -> None:
        """Begin anew, with the scripts still loaded."""
        self.client.flushdb()
        self.client.set(_CLOCK, _START_MS)

    @property
    def now_ms(self) -> int:
        return int(self.client.get(_CLOCK) or 0)

    def pass_(self, seconds: float) -> None:
        """Let time pass, for scripts; what expires by the server's own clock does not."""
        self.client.incrby(_CLOCK, round(seconds * 1000))

    def ask(self, call: Call[T]) -> T:
        """Send a call, and read its answer."""
        if call.name.isupper():
            return call.read(self.client.execute_command(call.name, *call.keys, *call.args))
        return call.read(self.client.evalsha(self._shas[call.name], len(call.keys), *call.keys, *call.args))

    def names(self) -> set[str]:
        """What there is besides the clock, without a group's prefix."""
        found: Any = self.client.keys("*")
        return {key.decode().split("}:", 1)[-1] for key in found} - {_CLOCK}


@contextmanager
def standing_store() -> Iterator[Store]:
    """A store of our own."""
    with RedisServer() as server, server.client() as client:
        yield Store(client)


def group(
    instance: str = "w1",
    *,
    projects: dict[str, ProjectSettings] | None = None,
    models: Sequence[str] = ("m",),
    worker: str | None = None,
    **settings: Any,
) -> RedisGroup:
    """A worker's part of a group; a project named `p` with a model named `m`, where nothing else is said."""
    projects = projects or {"p": ProjectSettings()}
    return RedisGroup(
        "g",
        instance,
        worker or f"worker-{instance}",
        projects=projects,
        lanes=dict.fromkeys(projects, models),
        **{
            "queue_size": 100,
            "ageing": 5.0,
            "lease": 10.0,
            "retry_memory": 60.0,
            "session_ttl": 3600.0,
            "max_sessions": 1000,
            "max_history_bytes": 1_000_000,
            "max_attempts": 3,
            **settings,
        },
    )


def bid(job: str, **fields: Any) -> Bid:
    """A request for it, stateless where nothing else is said."""
    return Bid(
        **{
            "job": job,
            "project": "p",
            "model": "m",
            "owner": None,
            "session": None,
            "flying": fields.get("session") or "s",
            "names": job,
            "retry": None,
            "windows": (),
            "body": b"body of " + job.encode(),
            **fields,
        }
    )


def admit(store: Store, one: RedisGroup, request: Bid) -> Verdict:
    return store.ask(one.admit(request, store.now_ms))


def wait(store: Store, one: RedisGroup, job: str, **fields: Any) -> None:
    """Admit and confirm a job."""
    assert isinstance(admit(store, one, bid(job, **fields)), Admitted)
    assert store.ask(one.confirm([job])) == Confirmed()


def run(store: Store, one: RedisGroup, job: str, mark: str = "t", **fields: Any) -> Taken:
    """Admit, confirm and take a job."""
    wait(store, one, job, **fields)
    (taken,) = store.ask(one.take(mark, [("m", 1)])).jobs
    assert taken.job == job
    return taken


def end(store: Store, one: RedisGroup, taken: Taken, **fields: Any) -> Committed | None:
    return store.ask(one.commit(Ending(taken.job, taken.token, b"reply", **fields)))


def written(version: int = 1, **fields: Any) -> Written:
    return Written(**{"version": version, "pending": b"change", "tokens": 10, "system": None, "bytes": 100, **fields})


def live_through(store: Store, one: RedisGroup, job: str, **fields: Any) -> None:
    """Have a job run and end well."""
    taken = run(store, one, job, f"t-{job}", **fields)
    change = written(taken.version + 1) if taken.session else None
    assert end(store, one, taken, change=change, outcome=b"outcome") is not None
    store.ask(one.settle([(taken.job, taken.token, True)]))
