"""A scripted worker for the client's tests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from support.fake_worker import FakeWorker
from support.mosquitto import Mosquitto


@pytest.fixture
def fake_worker(broker: Mosquitto) -> Iterator[FakeWorker]:
    """Echoes, until the test gives it another script; serves a project of its own."""
    with FakeWorker(broker.port, project=f"project-{uuid.uuid4().hex[:8]}") as worker:
        yield worker
