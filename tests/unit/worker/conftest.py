"""What the tests of remote engines share, and those of the store that workers share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from inferbus_worker.engines.remote.loop import RemoteLoop
from support.needs import needs_module
from support.redis_calls import Store, standing_store


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
