"""What is remembered of workers' announcements: bounded, and those who are there before those who have gone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inferbus_client.exchange.announced import Announced
from inferbus_client.mqtt.message import Incoming


def hear(announced: Announced, worker: str, kind: str, **said: Any) -> None:
    payload = json.dumps({"worker": worker, **said}).encode()
    announced.received(Incoming(f"inferbus/workers/{worker}/{kind}", payload, retain=False))


def presence(announced: Announced, worker: str, state: str = "ready", **said: Any) -> None:
    hear(announced, worker, "status", state=state, **said)


def slots(uptime: int, *, models: int = 100) -> dict[str, Any]:
    """Figures of as many slots as may be, in as few bytes."""
    return {
        "uptimeS": uptime,
        "models": {f"m{model}": {"slots": {f"s{n}": {} for n in range(100)}} for model in range(models)},
    }


@pytest.mark.parametrize("before", ["offline", "with figures alone"])
def test_who_is_there_is_noted_however_many_have_gone(before: str) -> None:
    announced = Announced(max_workers=10)
    for number in range(20):
        if before == "offline":
            presence(announced, f"old-{number}", "offline")
        else:
            hear(announced, f"old-{number}", "stats", uptimeS=1)
    assert len(announced.workers) == 10
    presence(announced, "new")
    assert len(announced.workers) == 10
    assert announced.presences["new"].state == "ready"


def test_nobody_who_is_there_makes_room() -> None:
    announced = Announced(max_workers=10)
    for number in range(20):
        presence(announced, f"worker-{number}")
    assert list(announced.presences) == [f"worker-{number}" for number in range(10)]


def test_what_nobody_can_read_makes_room_too() -> None:
    announced = Announced(max_workers=10)
    for number in range(20):
        announced.received(Incoming(f"inferbus/workers/noise-{number}/status", b"noise"))
    assert len(announced.workers) == 10
    presence(announced, "new")
    assert list(announced.presences) == ["new"]


def test_figures_take_no_more_than_they_may() -> None:
    announced = Announced(max_bytes=20_000_000)
    for uptime in range(1, 4):
        hear(announced, "strange", "stats", **slots(uptime))
    # Each is ten thousand slots, so that one has room, and the latest is the one that counts.
    assert [reading.uptime_s for reading in announced.workers["strange"].readings] == [3]
    hear(announced, "stranger", "stats", **slots(1))
    assert "stranger" not in announced.workers
    presence(announced, "w")
    hear(announced, "w", "stats", uptimeS=1)
    hear(announced, "w", "stats", uptimeS=2)
    assert len(announced.workers["w"].readings) == 2
    # What is forgotten makes room.
    announced.received(Incoming("inferbus/workers/strange/status", b"", retain=False))
    hear(announced, "stranger", "stats", **slots(1))
    assert len(announced.workers["stranger"].readings) == 1


def test_a_crowd_of_projects_is_not_noted_and_whoever_is_known_may_still_change() -> None:
    announced = Announced(max_bytes=1_000_000)
    presence(announced, "w", projects=["general"])
    for number in range(10):
        presence(announced, f"strange-{number}", projects=[f"p{each}" for each in range(400)])
    assert len(announced.presences) == 3
    presence(announced, "strange-0", projects=[f"p{each}" for each in range(590)])
    presence(announced, "w", "draining", projects=["general"])
    assert announced.presences["w"].state == "draining"
