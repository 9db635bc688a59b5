"""The worker's start on the bus, where something ends it half-way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

from inferbus_client.errors import IdTakenError
from inferbus_worker.bus.connection import Bus
from inferbus_worker.replies.sender import Sender
from inferbus_worker.settings.worker import Settings
from support.mosquitto import Mosquitto
from support.waiting import PATIENCE, until


@pytest.fixture
def bus(broker: Mosquitto) -> Iterator[Bus]:
    settings = Settings.load(
        {"broker": broker.url, "worker_id": "half-way", "projects": ["half-way"], "broker_timeout": "3m"}
    )
    bus = Bus(
        settings,
        sender=Sender(qos=0, max_bytes=1_000_000),
        receive=lambda _message: None,
        asked=lambda: None,
        came_up=lambda: None,
        model="none",
    )
    yield bus
    bus.close(2)


def test_who_has_to_go_while_he_looks_around_is_told_why_and_at_once(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """He once waited ten seconds for a broker's answer that nobody could hear any more, and blamed the broker."""
    reason = IdTakenError("another worker already has this id")

    def rival_comes() -> bool:
        if bus._company is not None and bus.link.is_alive:
            bus.link.give_up(reason)
            until(lambda: not bus.link.is_alive)
        return False

    monkeypatch.setattr(bus.link, "subscribe", partial(bus.link.subscribe, timeout=3 * PATIENCE))
    began = time.monotonic()
    with pytest.raises(IdTakenError) as ended:
        bus.start(rival_comes)
    assert ended.value is reason
    assert time.monotonic() - began < PATIENCE  # far below that
