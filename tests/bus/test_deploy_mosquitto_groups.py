"""The Mosquitto configuration that we ship, as the workers of a group and their operator meet it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from inferbus_client.contract import topics
from support.members import member
from support.peer import Peer
from support.shipped_mosquitto import ShippedMosquitto
from support.waiting import until


@pytest.fixture(scope="module")
def shipped() -> Iterator[ShippedMosquitto]:
    with ShippedMosquitto("alice") as broker:
        broker.passwords["inferbus-operator"] = broker.provision("operator")
        yield broker


def way(shipped: ShippedMosquitto) -> dict[str, Any]:
    """As a worker's settings say it, over those that a member has by itself."""
    return {
        "broker": shipped.workers_url,
        "cafile": shipped.cafile,
        "username": "inferbus-worker",
        "password": shipped.passwords["inferbus-worker"],
        "identity": "topic",
        "projects": ["general"],
    }


def test_workers_of_a_group_are_dealt_requests_and_hear_every_cancel(shipped: ShippedMosquitto) -> None:
    with (
        member(shipped, "w1", **way(shipped)) as first,
        member(shipped, "w2", **way(shipped)) as second,
        Peer(shipped.site, "alice") as alice,
    ):
        for number in range(10):
            alice.publish("general/users/alice/user_input", str(number))
        alice.publish("general/users/alice/cancel/s1", "end")
        until(lambda: "end" in first.texts and "end" in second.texts)
        assert sorted(first.texts + second.texts) == sorted([*map(str, range(10)), "end", "end"])
        assert first.bus.leave(20)


def test_the_operator_alone_asks_a_worker_to_leave(shipped: ShippedMosquitto) -> None:
    with member(shipped, "w1", **way(shipped)) as worker:
        for login in ("alice", "inferbus-worker"):
            with Peer(shipped.site, login, listener="workers") as peer, suppress(RuntimeError):  # disconnected for it
                peer.publish(topics.drain("w1"), login)
        with Peer(shipped.site, "inferbus-operator") as operator:
            operator.publish(topics.drain("w1"), "please")
        until(lambda: worker.drains)
        assert worker.drains == 1
