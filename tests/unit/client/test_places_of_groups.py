"""Who still answers at the gateway when a worker goes that shares its requests with others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from inferbus_client.exchange.announced import Announced
from inferbus_client.gateway.places import Asked, Places
from inferbus_client.mqtt.message import Incoming
from inferbus_client.settings.client import ClientSettings

Act = Callable[["Bus", Asked], None]


class Bus:
    """What is announced, and what the gateway makes of it."""

    def __init__(self) -> None:
        self.announced = Announced()
        self.places = Places(self.announced, ClientSettings.load({"broker": "mqtt://localhost"}))

    def says(self, worker: str, state: str = "ready", run: str = "first", **said: Any) -> None:
        instance = {"mark": f"{worker} {run}", "started": 1, "connection": 1}
        payload = {"worker": worker, "state": state, "projects": ["general"], "instance": instance, **said}
        self.announced.received(Incoming(f"inferbus/workers/{worker}/status", json.dumps(payload).encode()))

    def clear(self, worker: str) -> None:
        self.announced.received(Incoming(f"inferbus/workers/{worker}/status", b""))


def ends(act: Act, **said: dict[str, Any]) -> bool:
    """Whether a request ends by what happens, where these workers are there when it is asked."""

    async def look() -> bool:
        bus = Bus()
        for worker, more in said.items():
            bus.says(worker, **more)
        with bus.places.asked("general") as asked:
            act(bus, asked)
            await asyncio.sleep(0)
            return asked.end.done()

    return asyncio.run(look())


SHARED: dict[str, Any] = {"group": "inferbus"}


def goes(*workers: str, **said: Any) -> Act:
    """The first of them has accepted the request, and all of them go."""

    def act(bus: Bus, asked: Asked) -> None:
        asked.taken_by(workers[0])
        for worker in workers:
            bus.says(worker, "offline", **said)

    return act


def test_a_request_outlives_the_worker_that_has_it_while_another_of_its_group_is_there() -> None:
    assert not ends(goes("a", **SHARED), a=SHARED, b=SHARED)


def test_a_request_outlives_its_worker_that_comes_back_in_another_run() -> None:
    def act(bus: Bus, asked: Asked) -> None:
        asked.taken_by("a")
        bus.says("a", run="second", **SHARED)

    assert not ends(act, a=SHARED)
    assert ends(lambda bus, _: bus.says("a", run="second"), a={})


def test_who_joins_the_group_later_takes_over_too() -> None:
    def act(bus: Bus, asked: Asked) -> None:
        bus.says("b", "loading", **SHARED)
        goes("a", **SHARED)(bus, asked)

    assert not ends(act, a=SHARED)


def test_a_request_ends_with_the_last_of_its_group() -> None:
    assert ends(goes("a", "b", **SHARED), a=SHARED, b=SHARED)


def test_a_request_ends_where_the_last_of_its_group_is_forgotten() -> None:
    assert ends(lambda bus, _: bus.clear("a"), a=SHARED)


@pytest.mark.parametrize(
    "other",
    [{}, {"group": "another"}, {"group": "inferbus", "projects": ["else"]}, {"group": "inferbus", "identity": "topic"}],
    ids=["in no group", "another group", "another project", "another identity"],
)
def test_who_shares_nothing_with_the_worker_takes_nothing_over(other: dict[str, Any]) -> None:
    assert ends(goes("a", **SHARED), a=SHARED, b=other)


def test_whoever_has_accepted_it_is_the_one_to_wait_for() -> None:
    assert ends(goes("a"), a={}, b={})
    assert not ends(lambda bus, _: bus.says("a", "offline"), a={}, b={})


def test_one_that_was_gone_before_it_was_heard_to_accept_is_gone() -> None:
    def act(bus: Bus, asked: Asked) -> None:
        bus.says("a", "offline")
        asked.taken_by("a")

    assert ends(act, a={}, b={})


def test_an_unknown_workers_word_says_nothing_of_the_others() -> None:
    assert not ends(lambda _, asked: asked.taken_by("stranger"), a=SHARED)
