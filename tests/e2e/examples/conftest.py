"""What the examples run against; those that one process tries share it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.example_bus import PER_WORD, SETTINGS, ExampleBus
from support.other_brokers import MosquittoOverWebSocket
from support.worker import WorkerProcess


@pytest.fixture(scope="session")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExampleBus]:
    """Each test names sessions of its own in it."""
    settings = tmp_path_factory.mktemp("examples") / "projects.yaml"
    settings.write_text(SETTINGS)
    with (
        MosquittoOverWebSocket() as broker,
        # By its plain address: the one that `url` says is for browsers.
        WorkerProcess(
            broker,
            broker_url=f"mqtt://{broker.host}:{broker.port}",
            config=settings,
            rate_limit="off",
            simulated_per_token=PER_WORD,
        ),
    ):
        yield ExampleBus(broker)
