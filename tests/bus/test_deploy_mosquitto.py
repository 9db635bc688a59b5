"""The Mosquitto configuration that we ship, tried by a user who is up to no good.

Each probe returns what `bob` got out of it, so that the same probes can be turned on a broker without the
configuration: there they must find something. No probe waits for nothing to happen: the broker keeps the order, so what
was not heard before a later message was not sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from support.mosquitto import Mosquitto
from support.peer import WORKER_ID, Listener, Peer, Site, worker_peer
from support.shipped_mosquitto import ShippedMosquitto
from support.waiting import until

REQUESTS: Final = "general/users/+/user_input"
ALICE: Final = "general/users/alice"
BOB: Final = "general/users/bob"
STATUS: Final = "inferbus/workers/w1/status"
STATS: Final = "inferbus/workers/w1/stats"
DENIED_FILTERS: Final = (
    "#",
    "+/#",
    "general/#",
    "general/users/#",
    "general/users/+/assistant_response/#",
    "general/+/alice/#",
    "+/+/+/+/+",
    f"{ALICE}/#",
    f"{ALICE}/user_input",
    f"{ALICE}/assistant_response/s1",
    f"{ALICE}/session/response",
    "$share/inferbus/#",
    f"$share/bobs/{ALICE}/assistant_response/#",
    f"$share/inferbus/{REQUESTS}",
    "inferbus/workers/+/stats/get",
    "inferbus/workers/+/drain",
    "$share/inferbus.w1/inferbus/workers/w1/probe",
    "$SYS/#",
    "$CONTROL/dynamic-security/#",
)

LISTENERS: Final[tuple[Listener, ...]] = ("users", "workers")

Probe = Callable[[Site, MQTTProtocolVersion], object]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ShippedMosquitto("alice", "bob") as broker:
        yield broker.site


# --- the probes: what does bob get? ---


def _share_of_the_group(site: Site, protocol: MQTTProtocolVersion) -> int:
    """How many of alice's requests the workers' shared group loses to bob."""
    with worker_peer(site) as worker, Peer(site, "alice") as alice, Peer(site, "bob", protocol=protocol) as bob:
        assert worker.subscribe(f"$share/inferbus/{REQUESTS}", "general/users/+/session")
        bob.subscribe(f"$share/inferbus/{REQUESTS}", f"$share/inferbus/{ALICE}/user_input")
        for number in range(20):
            alice.publish(f"{ALICE}/user_input", f"request {number}")
        alice.publish(f"{ALICE}/session", "end")
        return 20 - len(worker.wait_for("end"))


def _kicks(site: Site, protocol: MQTTProtocolVersion) -> int:
    """How often the worker loses its connection to bob, who takes its client id on either listener."""
    with worker_peer(site) as worker, Peer(site, "alice") as alice:
        assert worker.subscribe(REQUESTS)
        for listener in LISTENERS:
            with Peer(site, "bob", client_id=WORKER_ID, listener=listener, protocol=protocol):
                alice.publish(f"{ALICE}/user_input", listener)
                until(partial(_has_heard_or_gone, worker, listener))
        return worker.losses


def _has_heard_or_gone(peer: Peer, payload: str) -> bool:
    return bool(peer.losses) or payload in [said for _, said in peer.heard]


def _stolen_from_an_absent_worker(site: Site, _protocol: MQTTProtocolVersion) -> int:
    """How many requests that wait for the worker bob gets, or destroys, under the worker's client id."""
    with worker_peer(site, session_expiry=300) as worker:
        assert worker.subscribe(REQUESTS)
    with Peer(site, "alice") as alice:
        alice.publish(f"{ALICE}/user_input", "waits")
    for listener in LISTENERS:
        with Peer(site, "bob", client_id=WORKER_ID, listener=listener):
            pass
    with worker_peer(site, session_expiry=300) as worker, Peer(site, "alice") as alice:
        worker.subscribe(REQUESTS)
        alice.publish(f"{ALICE}/user_input", "end")
        return 1 - len(worker.wait_for("end"))


def _heard_of_alice(site: Site, protocol: MQTTProtocolVersion) -> list[tuple[str, str]]:
    """What bob hears of what alice and the worker say."""
    with worker_peer(site) as worker, Peer(site, "alice") as alice, Peer(site, "bob", protocol=protocol) as bob:
        for name in DENIED_FILTERS:
            bob.subscribe(name)
        bob.subscribe(f"{BOB}/assistant_response/#")
        alice.publish(f"{ALICE}/user_input", "a secret question")
        worker.publish(f"{ALICE}/assistant_response/s1", "a secret answer")
        worker.publish(f"{BOB}/assistant_response/s1", "end")
        return bob.wait_for("end")


def _granted_filters(site: Site, protocol: MQTTProtocolVersion) -> list[str]:
    """Subscriptions that bob is granted, though they reach beyond what is his."""
    with Peer(site, "bob", protocol=protocol) as bob:
        return [name for name in DENIED_FILTERS if bob.subscribe(name)]


def _heard_by_the_worker(site: Site, protocol: MQTTProtocolVersion) -> list[tuple[str, str]]:
    """What reaches the worker of what bob says in alice's name."""
    with worker_peer(site) as worker, Peer(site, "alice") as alice, Peer(site, "bob", protocol=protocol) as bob:
        assert worker.subscribe(f"{REQUESTS}/#", "general/users/+/session", "general/users/+/cancel/+")
        for topic in (f"{ALICE}/user_input", f"{ALICE}/user_input/s1", f"{ALICE}/session", f"{ALICE}/cancel/s1"):
            bob.publish(topic, "bob")
        with Peer(site, "bob", protocol=protocol, will=f"{ALICE}/user_input/s1") as dying:
            if not dying.refusal:
                dying.vanish()
        alice.publish(f"{ALICE}/user_input", "end")
        return worker.wait_for("end")


def _heard_by_alice(site: Site, protocol: MQTTProtocolVersion) -> list[tuple[str, str]]:
    """What reaches alice of what bob says in the worker's name."""
    with worker_peer(site) as worker, Peer(site, "alice") as alice, Peer(site, "bob", protocol=protocol) as bob:
        assert alice.subscribe(f"{ALICE}/assistant_response/#", f"{ALICE}/session/response")
        for topic in (f"{ALICE}/assistant_response/s1", f"{ALICE}/session/response"):
            bob.publish(topic, "bob")
            bob.publish(topic, "bob", retain=True)
        worker.publish(f"{ALICE}/assistant_response/s1", "end")
        return alice.wait_for("end")


def _forged_presence(site: Site, protocol: MQTTProtocolVersion) -> list[tuple[str, str]]:
    """What bob makes observers believe of the worker: in words, by his Last Will, kept or not."""
    with worker_peer(site) as worker, Peer(site, "alice") as alice, Peer(site, "bob", protocol=protocol) as bob:
        assert alice.subscribe("inferbus/workers/+/status", "inferbus/workers/+/stats")
        for topic in (STATUS, STATS, "inferbus/workers/another/status"):
            bob.publish(topic, "bob", retain=True)
        with Peer(site, "bob", protocol=protocol, will=STATUS) as dying:
            if not dying.refusal:
                dying.vanish()
        worker.publish(STATS, "end")
        return alice.wait_for("end")


PROBES: Final = (
    _share_of_the_group,
    _kicks,
    _stolen_from_an_absent_worker,
    _heard_of_alice,
    _granted_filters,
    _heard_by_the_worker,
    _heard_by_alice,
    _forged_presence,
)


@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5], ids=["3.1.1", "5"])
@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__.strip("_"))
def test_bob_gets_nothing(site: Site, probe: Probe, protocol: MQTTProtocolVersion) -> None:
    assert not probe(site, protocol)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__.strip("_"))
def test_the_probes_find_an_open_broker_open(own_broker: Mosquitto, probe: Probe) -> None:
    open_site = Site(own_broker.host, own_broker.port, own_broker.port)
    assert probe(open_site, MQTTProtocolVersion.MQTTv5)
