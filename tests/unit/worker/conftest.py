"""What the tests of remote engines share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from inferbus_worker.engines.remote.loop import RemoteLoop
from support.needs import needs_module


@pytest.fixture(scope="module")
def loop() -> Iterator[RemoteLoop]:
    """The event loop of all remote engines of a worker."""
    needs_module("openai")
    needs_module("anthropic")
    loop = RemoteLoop()
    loop.start()
    yield loop
    loop.stop(10)
