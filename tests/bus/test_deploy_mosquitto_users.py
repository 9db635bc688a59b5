"""The Mosquitto configuration that we ship, as honest users, workers and operators meet it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from inferbus_client.exits import Exit
from support.inferbus import environment, inferbus
from support.mosquitto import Mosquitto, mosquitto_pub, mosquitto_rr
from support.peer import WORKER_ID, Listener, Peer, Site, worker_peer
from support.shipped_mosquitto import ShippedMosquitto
from support.waiting import until

REQUESTS: Final = "general/users/+/user_input"
ALICE: Final = "general/users/alice"
STATUS: Final = "inferbus/workers/w1/status"
STATS: Final = "inferbus/workers/w1/stats"
#: CONNECT, MQTT 3.1.1, client id "a".
PLAIN_CONNECT: Final = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a"
CONNACK: Final = b"\x20"


@pytest.fixture(scope="module")
def shipped() -> Iterator[ShippedMosquitto]:
    with ShippedMosquitto("alice", "alice phone", "bob") as broker:
        yield broker


@pytest.fixture(scope="module")
def site(shipped: ShippedMosquitto) -> Site:
    return shipped.site


def test_alice_asks_and_hears_on_each_of_her_devices(site: Site) -> None:
    with worker_peer(site) as worker, Peer(site, "alice") as alice, Peer(site, "alice-phone") as phone:
        for device in (alice, phone):
            assert device.subscribe(f"{ALICE}/assistant_response/s1", f"{ALICE}/session/response")
            assert device.subscribe(f"{ALICE}/assistant_response/#")
        assert worker.subscribe(f"{REQUESTS}/+", REQUESTS, "general/users/+/session", "general/users/+/cancel/+")
        asked = [(f"{ALICE}/{topic}", topic) for topic in ("user_input", "user_input/s1", "session", "cancel/s1")]
        for topic, payload in asked:
            phone.publish(topic, payload)
        worker.wait_for("cancel/s1")
        assert worker.heard == asked
        worker.publish(f"{ALICE}/session/response", "s2")
        worker.publish(f"{ALICE}/assistant_response/s1", "answer")
        for device in (alice, phone):
            assert (f"{ALICE}/session/response", "s2") in device.wait_for("answer")
        assert not alice.losses
        assert not phone.losses


def test_a_client_that_is_not_ours_gets_its_answer(shipped: ShippedMosquitto, site: Site) -> None:
    reply_topic = f"{ALICE}/assistant_response/s1/r1"
    credentials = _credentials(shipped, "alice")
    with worker_peer(site) as worker:
        assert worker.subscribe(REQUESTS)
        with ThreadPoolExecutor(1) as aside:
            answer = aside.submit(mosquitto_rr, shipped, f"{ALICE}/user_input", reply_topic, "question", *credentials)
            worker.wait_for("question")
            worker.publish(reply_topic, "answer")
        assert answer.result() == "answer"
    mosquitto_pub(shipped, f"{ALICE}/user_input", "by MQTT 3.1.1", "-V", "311", *credentials)


def test_everybody_sees_the_workers_presence_and_last_will(site: Site) -> None:
    with worker_peer(site, will=STATUS) as worker:
        worker.publish(STATUS, "ready", retain=True)
        with Peer(site, "bob") as bob:
            assert bob.subscribe("inferbus/workers/+/status", "inferbus/workers/+/stats")
            worker.publish(STATS, "figures")
            assert bob.wait_for("figures") == [(STATUS, "ready")]
            worker.vanish()
            bob.wait_for("will")


def test_everybody_may_ask_a_worker_for_its_figures(site: Site) -> None:
    question = "inferbus/workers/w1/stats/get"
    with worker_peer(site) as worker, worker_peer(site, client_id="inferbus-worker-w2") as second:
        assert worker.subscribe(question)
        with Peer(site, "bob") as bob:
            bob.publish(question, "bob")
        second.publish(question, "another worker")
        assert worker.wait_for("another worker") == [(question, "bob")]


@pytest.mark.slow
def test_the_operator_alone_forgets_a_worker(shipped: ShippedMosquitto, site: Site) -> None:
    shipped.passwords["inferbus-operator"] = shipped.provision("operator")
    with worker_peer(site, will=STATUS) as worker:
        worker.publish(STATUS, "ready", retain=True)
    way = ("--broker", shipped.url)
    refused = inferbus("forget", "w1", *way, *_credentials(shipped, "bob"))
    assert refused.returncode == Exit.BROKER
    assert "may this login publish" in refused.stderr
    cleared = inferbus("forget", "w1", *way, *_credentials(shipped, "inferbus-operator"))
    assert cleared.returncode == 0, cleared.stderr


def test_requests_wait_for_a_worker_that_is_away(site: Site) -> None:
    with worker_peer(site, session_expiry=300) as worker:
        assert worker.subscribe(REQUESTS)
    with Peer(site, "alice") as alice:
        alice.publish(f"{ALICE}/user_input", "waits")
    with worker_peer(site, session_expiry=300) as worker:
        assert worker.had_session
        worker.wait_for("waits")


def test_two_workers_share_their_login_and_their_group(site: Site) -> None:
    second = worker_peer(site, client_id="inferbus-worker-w2")
    with worker_peer(site) as first, second, Peer(site, "alice") as alice:
        for worker in (first, second):
            assert worker.subscribe(f"$share/inferbus/{REQUESTS}", "general/users/+/session")
        for number in range(10):
            alice.publish(f"{ALICE}/user_input", str(number))
        alice.publish(f"{ALICE}/session", "end")
        assert len(first.wait_for("end")) == len(second.wait_for("end")) == 5


@pytest.mark.parametrize("login", ["bob", "nobody", "inferbus-worker", "admin"])
@pytest.mark.parametrize("listener", ["users", "workers"])
def test_without_the_password_nobody_comes_in(site: Site, login: str, listener: Listener) -> None:
    ignorant = replace(site, passwords={login: "guessed"})
    with Peer(ignorant, login, listener=listener) as peer:
        assert peer.refusal == "Not authorized"


@pytest.mark.parametrize("listener", ["users", "workers"])
def test_nobody_is_heard_without_tls(site: Site, broker: Mosquitto, listener: Listener) -> None:
    assert _plain_answer(broker.host, broker.port) == CONNACK
    assert _plain_answer(site.host, site.port(listener)) != CONNACK


def _plain_answer(host: str, port: int) -> bytes | None:
    """The first byte that comes back for a CONNECT without TLS."""
    with socket.create_connection((host, port), timeout=10) as plain, suppress(ConnectionResetError):
        plain.sendall(PLAIN_CONNECT)
        return plain.recv(1)
    return None


@pytest.mark.slow
def test_a_real_worker_serves_there_and_everybody_sees_it(shipped: ShippedMosquitto, tmp_path: Path) -> None:
    with Peer(shipped.site, "alice") as alice:
        assert alice.subscribe("inferbus/workers/w7/status")
        with _serve(shipped, tmp_path / "log") as worker:
            until(lambda: "ready" in _states(alice) or worker.poll() is not None)
            status = inferbus("status", "--once", "--json", "--broker", shipped.url, *_credentials(shipped, "bob"))
            health = inferbus(
                *("status", "--once", "--broker", shipped.workers_url), *_credentials(shipped, "inferbus-worker")
            )
            asked = inferbus(
                *("ask", "hello", "--identity", "topic", "--broker", shipped.url), *_credentials(shipped, "bob")
            )
            topics = (f"{ALICE}/user_input/s1", f"{ALICE}/assistant_response/s1/r1")
            answer = mosquitto_rr(shipped, *topics, "hello", *_credentials(shipped, "alice-phone"))
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0, (tmp_path / "log").read_text()
        assert "hello" in answer
        assert "hello" in asked.stdout, asked.stderr
        assert status.returncode == 0, status.stderr
        assert health.returncode == 0, health.stderr
        assert json.loads(status.stdout)["w7"]["presence"]["state"] == "ready"
        until(lambda: _states(alice)[-1] == "offline")


def test_the_second_worker_of_an_id_ends(shipped: ShippedMosquitto, tmp_path: Path) -> None:
    """So a worker may read its own presence: there it learns that it is the second."""
    with Peer(shipped.site, "alice") as alice, _serve(shipped, tmp_path / "first") as first:
        try:
            assert alice.subscribe("inferbus/workers/w7/status")
            until(lambda: "ready" in _states(alice))
            with _serve(shipped, tmp_path / "second") as second:
                assert second.wait(60) == Exit.ID_TAKEN
            assert "another worker already has the id 'w7'" in (tmp_path / "second").read_text()
            until(lambda: _states(alice)[-1] == "ready")
        finally:
            first.terminate()
        assert first.wait(60) == 0, (tmp_path / "first").read_text()


def test_a_worker_that_may_not_read_its_own_presence_serves_on(shipped: ShippedMosquitto, tmp_path: Path) -> None:
    shipped.control("removeClientRole", "inferbus-worker", "inferbus-observer")
    with Peer(shipped.site, "alice") as alice, _serve(shipped, tmp_path / "log") as worker:
        try:
            assert alice.subscribe("inferbus/workers/w7/status")
            until(lambda: _states(alice)[-1:] == ["ready"])
            assert "inferbus/workers/w7/status cannot be read" in (tmp_path / "log").read_text()
        finally:
            worker.terminate()
            shipped.control("addClientRole", "inferbus-worker", "inferbus-observer")
        assert worker.wait(60) == 0, (tmp_path / "log").read_text()


def test_a_worker_that_may_not_be_asked_for_its_figures_serves_on(shipped: ShippedMosquitto, tmp_path: Path) -> None:
    """With roles that were made before there was such a question."""
    question = "inferbus/workers/+/stats/get"
    shipped.control("removeRoleACL", "inferbus-worker", "subscribePattern", question)
    with Peer(shipped.site, "alice") as alice, _serve(shipped, tmp_path / "log") as worker:
        try:
            assert alice.subscribe("inferbus/workers/w7/status")
            until(lambda: _states(alice)[-1:] == ["ready"])
            assert "nobody can ask for the stats" in (tmp_path / "log").read_text()
        finally:
            worker.terminate()
            shipped.control("addRoleACL", "inferbus-worker", "subscribePattern", question, "allow")
        assert worker.wait(60) == 0, (tmp_path / "log").read_text()


def test_a_worker_from_which_that_right_is_taken_serves_on(shipped: ShippedMosquitto, tmp_path: Path) -> None:
    """It is no request that it hears no more: it was not `ready` then, and ended after the broker's timeout."""
    right, log = ("inferbus-worker", "subscribePattern", "inferbus/workers/+/stats/get"), tmp_path / "log"
    with Peer(shipped.site, "alice") as alice, _serve(shipped, log, "--broker-timeout", "3s") as worker:
        try:
            assert alice.subscribe("inferbus/workers/w7/status")
            until(lambda: _states(alice)[-1:] == ["ready"])
            shipped.control("removeRoleACL", *right)
            for command in ("disableClient", "enableClient"):  # which disconnects it
                shipped.control(command, "inferbus-worker")
            until(lambda: "connected again" in log.read_text())
            began, before = time.monotonic(), len(alice.heard)
            until(lambda: time.monotonic() - began > 4 or worker.poll() is not None)
            assert worker.poll() is None, log.read_text()
            assert "loading" not in _states(alice)[before:]
            assert _states(alice)[-1] == "ready"
        finally:
            worker.terminate()
            shipped.control("addRoleACL", *right, "allow")
        assert worker.wait(60) == 0, log.read_text()


def _serve(shipped: ShippedMosquitto, log: Path, *more: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "inferbus_worker.demo.lifeline", "serve", *_serve_options(shipped), *more],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            env=environment(INFERBUS_PASSWORD=shipped.passwords["inferbus-worker"]),
        )


def _serve_options(shipped: ShippedMosquitto) -> list[str]:
    connection = ["--broker", shipped.workers_url, "--cafile", str(shipped.cafile), "--username", "inferbus-worker"]
    return ["--engine", "simulated", "--worker-id", "w7", "--identity", "topic", *connection]


def _credentials(shipped: ShippedMosquitto, login: str) -> tuple[str, ...]:
    """As `inferbus` and mosquitto's own programs both spell them."""
    return "--cafile", str(shipped.cafile), "-u", login, "-P", shipped.passwords[login]


def _states(observer: Peer) -> list[str]:
    return [json.loads(payload)["state"] for _, payload in observer.heard]


# --- provisioning ---


def test_a_new_login_disturbs_nobody_and_a_removed_one_is_out(shipped: ShippedMosquitto, site: Site) -> None:
    with worker_peer(site) as worker, Peer(site, "alice") as alice:
        assert worker.subscribe(REQUESTS)
        carol = replace(site, passwords={"carol": shipped.provision("user", "carol")})
        with Peer(carol, "carol") as peer:
            peer.publish("general/users/carol/user_input", "carol")
            worker.wait_for("carol")
            shipped.provision("remove", "carol")
            until(lambda: peer.losses)
        with Peer(carol, "carol") as peer:
            assert peer.refusal
        assert not worker.losses
        assert not alice.losses


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["user", "alice"], "already exists"),
        (["user", "alice", "phone"], "already exists"),
        (["worker"], "already exists"),
        (["user", "admin"], "reserved"),
        (["user", WORKER_ID], "reserved"),
        (["user", "inferbus", "worker-w1"], "reserved"),
        (["user", "a/b"], "no name"),
        (["user", "+"], "no name"),
        (["user", 'a"'], "no name"),
        (["user", ""], "no name"),
        (["remove", "nobody"], "not found"),
        (["user"], "provision user NAME"),
        ([], "provision user NAME"),
    ],
)
def test_provision_refuses(shipped: ShippedMosquitto, arguments: list[str], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        shipped.provision(*arguments)
