"""What the tests of the worker's rooms share: where their state is, the store, and the loop of remote engines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest

from inferbus_worker.engines.remote.loop import RemoteLoop
from support.in_place import StoreInPlace
from support.needs import needs_module
from support.redis_calls import Store, standing_store
from support.rooms import Rooms

State = Literal["memory", "redis"]


@pytest.fixture(scope="module")
def loop() -> Iterator[RemoteLoop]:
    """The event loop of all remote engines of a worker."""
    needs_module("openai")
    needs_module("anthropic")
    loop = RemoteLoop()
    loop.start()
    yield loop
    loop.stop(10)


@pytest.fixture(scope="session")
def _standing_store() -> Iterator[Store]:
    with standing_store() as store:
        yield store


@pytest.fixture
def store(_standing_store: Store) -> Store:
    """An empty store, in which time stands still."""
    _standing_store.clear()
    return _standing_store


@pytest.fixture
def in_groups(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's rooms are in groups; see `Rooms`."""
    monkeypatch.setattr(Rooms, "store", StoreInPlace(store.client))


@pytest.fixture(params=["memory", "redis"])
def state(request: pytest.FixtureRequest) -> State:
    """Where the rooms of the test have their state: the same cases hold wherever that is."""
    kind: State = request.param
    if kind == "redis":
        request.getfixturevalue("in_groups")
    return kind
