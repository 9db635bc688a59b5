"""Where the gateway finds models, and who of those that are asked goes: by announcements, which anybody may make."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from inferbus_client.exchange.announced import Announced
from inferbus_client.gateway.places import Places
from inferbus_client.mqtt.message import Incoming
from inferbus_client.settings.client import ClientSettings


class Bus:
    """What is announced, and what the gateway makes of it."""

    def __init__(self) -> None:
        self.announced = Announced()
        self.places = Places(self.announced, ClientSettings.load({"broker": "mqtt://localhost"}))

    def says(self, topic: str, worker: str | None = None, state: str = "ready", **said: Any) -> None:
        payload = {"worker": worker or topic, "state": state, "projects": ["general"], **said}
        self.announced.received(Incoming(f"inferbus/workers/{topic}/status", json.dumps(payload).encode()))

    def models(self) -> list[str]:
        return [model["id"] for model in self.places.models(None)]


def run(mark: str) -> dict[str, Any]:
    return {"mark": mark, "started": 1, "connection": 1}


def test_a_list_of_models_takes_time_by_how_many_there_are() -> None:
    bus = Bus()
    for worker in range(5):
        bus.says(f"w{worker}", projects=[f"p{worker}-{number}" for number in range(5000)])
    began = time.monotonic()
    assert len(bus.models()) == 25_000
    assert time.monotonic() - began < 3  # each project looked up among all of them took a quarter of a minute


def test_only_what_can_be_asked_for_is_listed() -> None:
    bus = Bus()
    bus.says("w", projects=["#", "a/b", "", "a\nb", "x" * 100, "general"], choices={"general": ["fast"]})
    bus.says("elsewhere", projects=["users"], identity="topic")
    bus.says("gone", state="offline", projects=["gone"])
    assert bus.models() == ["general", "general/fast"]


def test_of_several_workers_one_that_is_ready_says_which_models_there_are() -> None:
    bus = Bus()
    bus.says("a", state="loading", choices={"general": ["old"]})
    assert bus.models() == ["general", "general/old"]
    bus.says("b", choices={"general": ["new"]})
    bus.says("c", state="draining", choices={"general": ["old"]})
    assert bus.models() == ["general", "general/new"]


def test_nobody_speaks_for_a_worker_but_on_its_own_topic() -> None:
    bus = Bus()
    bus.says("w", instance=run("one"))
    bus.says("stranger", worker="w", instance=run("another"))

    async def look() -> None:
        with bus.places.asked("general") as asked:
            bus.says("somebody", projects=["else"])
            await asyncio.sleep(0)
            assert not asked.end.done()
            bus.says("w", state="offline", instance=run("one"))
            bus.says("stranger", worker="w", state="offline")
            assert (await asyncio.wait_for(asked.end, 5)).code == "engine_unavailable"

    asyncio.run(look())
