"""What the tests of the worker's rooms share: where their state is, and the loop of remote engines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest

from inferbus_worker.engines.remote.loop import RemoteLoop
from support.in_place import StoreInPlace, store_in_place
from support.needs import needs_module
from support.rooms import Rooms

State = Literal["memory", "redis"]


@pytest.fixture(scope="session")
def redis_of_all() -> Iterator[StoreInPlace]:
    """The one store of this process's tests of rooms."""
    with store_in_place() as store:
        yield store


@pytest.fixture(params=["memory", "redis"])
def state(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> State:
    """Where the rooms of the test have their state: the same cases hold wherever that is.

    Those with `redis` are the rooms of a worker that has a group for itself; see `Rooms`.
    """
    kind: State = request.param
    if kind == "redis":
        store: StoreInPlace = request.getfixturevalue("redis_of_all")
        store.clear()
        monkeypatch.setattr(Rooms, "store", store)
    return kind


@pytest.fixture(scope="module")
def loop() -> Iterator[RemoteLoop]:
    """The event loop of all remote engines of a worker."""
    needs_module("openai")
    needs_module("anthropic")
    loop = RemoteLoop()
    loop.start()
    yield loop
    loop.stop(10)
