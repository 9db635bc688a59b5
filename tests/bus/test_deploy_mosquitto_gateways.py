"""The gateway's login on the Mosquitto that we ship: it asks as itself, beside others, and as nobody else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from support.inferbus import environment, inferbus
from support.peer import WORKER_ID, Peer, Site, worker_peer
from support.shipped_mosquitto import ShippedMosquitto
from support.waiting import until

GATEWAY: Final = "inferbus-gateway"
SECOND: Final = "inferbus-gateway-2"
OWN: Final = f"general/users/{GATEWAY}"
ALICE: Final = "general/users/alice"
REQUESTS: Final = "+/users/+/user_input/#"
NOT_ITS_OWN: Final = (
    *("#", "general/#", "general/users/#", "+/users/+/assistant_response/#", f"{ALICE}/assistant_response/#"),
    *(f"general/users/{SECOND}/assistant_response/#", f"{OWN}/#", f"{OWN}/user_input/#", "$SYS/#", "$CONTROL/#"),
    *(f"$share/inferbus/{REQUESTS}", f"$share/g/{OWN}/assistant_response/#", "inferbus/workers/+/stats/get"),
)


@pytest.fixture(scope="module")
def shipped() -> Iterator[ShippedMosquitto]:
    with ShippedMosquitto("alice") as broker:
        broker.passwords[GATEWAY] = broker.provision("gateway")
        broker.passwords[SECOND] = broker.provision("gateway", "2")
        yield broker


@pytest.fixture(scope="module")
def site(shipped: ShippedMosquitto) -> Site:
    return shipped.site


def gateway(site: Site, login: str = GATEWAY, client_id: str = "inferbus-gateway-one", **more: str) -> Peer:
    return Peer(site, login, client_id=client_id, listener="workers", **more)  # type: ignore[arg-type]


def test_two_of_one_login_stand_side_by_side_and_hear_what_is_theirs(site: Site) -> None:
    with worker_peer(site) as worker, gateway(site) as first, gateway(site, client_id="inferbus-gateway-two") as second:
        assert worker.subscribe(REQUESTS)
        for peer, name in ((first, "one"), (second, "two")):
            assert peer.subscribe(f"+/users/{GATEWAY}/assistant_response/+/{name}", f"{OWN}/session/response/{name}")
        first.publish(f"{OWN}/user_input/s1", "of one")
        second.publish(f"robots/users/{GATEWAY}/user_input", "of two")
        assert worker.wait_for("of two") == [(f"{OWN}/user_input/s1", "of one")]
        worker.publish(f"{OWN}/assistant_response/s1/one", "for one")
        worker.publish(f"robots/users/{GATEWAY}/assistant_response/s1/two", "for two")
        assert first.wait_for("for one") == second.wait_for("for two") == []
        assert (first.losses, second.losses) == (0, 0)


def test_it_may_go_to_the_users_listener_where_it_is_alone(site: Site) -> None:
    with Peer(site, GATEWAY) as first:
        assert first.subscribe(f"{OWN}/assistant_response/#")
        with Peer(site, GATEWAY, client_id="another") as second:
            assert not second.refusal
            until(lambda: first.losses)


@pytest.mark.parametrize("login", [GATEWAY, SECOND])
def test_it_asks_as_nobody_else(site: Site, login: str) -> None:
    others = [f"general/users/{name}" for name in ("alice", GATEWAY, SECOND) if name != login]
    with worker_peer(site) as worker, gateway(site, login) as peer:
        assert worker.subscribe(REQUESTS, "+/users/+/session", "+/users/+/cancel/+")
        for other in others:
            for topic in ("user_input", "user_input/s1", "session", "cancel/s1"):
                peer.publish(f"{other}/{topic}", "forged")
            with gateway(site, login, "inferbus-gateway-dying", will=f"{other}/user_input/s1") as dying:
                if not dying.refusal:
                    dying.vanish()
        peer.publish(f"general/users/{login}/user_input", "end")
        assert worker.wait_for("end") == []


def test_it_answers_nobody_and_announces_nothing(site: Site) -> None:
    status, stats = "inferbus/workers/w1/status", "inferbus/workers/w1/stats"
    with worker_peer(site) as worker, Peer(site, "alice") as alice, gateway(site) as peer:
        assert alice.subscribe(f"{ALICE}/assistant_response/#", "inferbus/workers/+/status", "inferbus/workers/+/stats")
        for topic in (f"{ALICE}/assistant_response/s1", status, stats):
            peer.publish(topic, "forged", retain=True)
        worker.publish(f"{ALICE}/assistant_response/s1", "end")
        assert alice.wait_for("end") == []


def test_it_is_granted_nothing_that_is_not_its_own(site: Site) -> None:
    with gateway(site) as peer:
        assert [name for name in NOT_ITS_OWN if peer.subscribe(name)] == []


def test_it_sees_the_workers_and_asks_for_their_figures(site: Site) -> None:
    question = "inferbus/workers/w1/stats/get"
    with worker_peer(site) as worker, gateway(site) as peer:
        assert worker.subscribe(question)
        assert peer.subscribe("inferbus/workers/+/status", "inferbus/workers/+/stats")
        peer.publish(question, "gateway")
        worker.wait_for("gateway")
        worker.publish("inferbus/workers/w1/stats", "figures")
        peer.wait_for("figures")


def test_under_a_worker_s_client_id_it_still_hears_nothing(site: Site) -> None:
    """What the README owns up to: it takes the connection, and what waits there, but may not read it."""
    with worker_peer(site, session_expiry=300) as worker:
        assert worker.subscribe(REQUESTS)
        with Peer(site, GATEWAY, client_id=WORKER_ID, listener="workers", session_expiry=300) as thief:
            assert not thief.refusal
            until(lambda: worker.losses)
            assert thief.subscribe(f"{OWN}/assistant_response/#")
            with Peer(site, "alice") as alice, worker_peer(site, client_id="inferbus-worker-w2") as second:
                assert second.subscribe(REQUESTS)
                alice.publish(f"{ALICE}/user_input", "a secret")
                second.wait_for("a secret")
                second.publish(f"{OWN}/assistant_response/s1", "end")
                assert thief.wait_for("end") == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["gateway"], "already exists"),
        (["gateway", "2"], "already exists"),
        (["gateway", "a/b"], "no name"),
        (["gateway", "x" * 120], "no name"),
        (["gateway", "a", "b"], "provision gateway"),
        (["user", "inferbus-gateway"], "reserved"),
        (["user", "inferbus", "gateway"], "reserved"),
    ],
)
def test_provision_refuses(shipped: ShippedMosquitto, arguments: list[str], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        shipped.provision(*arguments)


@pytest.mark.slow
def test_a_real_worker_believes_it_whom_it_asks_for(shipped: ShippedMosquitto, tmp_path: Path) -> None:
    password, log = tmp_path / "password", tmp_path / "log"
    password.write_text(shipped.passwords[GATEWAY])
    way = ("--broker", shipped.workers_url, "--cafile", str(shipped.cafile))
    credentials = ("--username", GATEWAY, "--password-file", str(password))
    with Peer(shipped.site, "alice") as alice, _serve(shipped, log, *way) as worker:
        assert alice.subscribe("inferbus/workers/w7/status")
        try:
            until(lambda: "ready" in _states(alice) or worker.poll() is not None)
            asking = ("ask", "hello", "--identity", "topic", "--retries", "0", *way, *credentials)
            runs = [inferbus(*asking, "--id", client) for client in ("alice", "alice", "bob")]
        finally:
            worker.terminate()
        assert worker.wait(60) == 0, log.read_text()
    assert ["hello" in run.stdout for run in runs] == [True, False, True], [run.stderr for run in runs]
    assert "Rate limit" in runs[1].stderr


def _serve(shipped: ShippedMosquitto, log: Path, *way: str) -> subprocess.Popen[bytes]:
    limits = ("--identity", "topic", "--client-rate-limit", "1/1h", "--gateway", GATEWAY)
    serving = ("serve", "--engine", "simulated", "--worker-id", "w7", "--username", "inferbus-worker")
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "inferbus_worker.demo.lifeline", *serving, *limits, *way],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            env=environment(INFERBUS_PASSWORD=shipped.passwords["inferbus-worker"]),
        )


def _states(observer: Peer) -> list[str]:
    return [json.loads(said)["state"] for _, said in observer.heard]
