"""Workers of one group over a real Redis: each has a model of its own, and they say what is wrong with the store."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence
from support.inferbus import inferbus
from support.listener import Listener
from support.mosquitto import Mosquitto, free_port
from support.pki import Authority
from support.redis_server import RedisServer
from support.waiting import until
from support.worker import WorkerProcess, starting


def config(folder: Path, name: str, here: str, elsewhere: str) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(
        f"projects: {{general: {{model: small, models: [small, big]}}}}\n"
        f"models:\n  {here}: {{engine: simulated}}\n  {elsewhere}: {{elsewhere: true}}\n"
    )
    return file


def served(broker: Mosquitto, store: RedisServer, file: Path) -> WorkerProcess:
    return WorkerProcess(broker, config=file, state=store.url, rate_limit="off")


def test_a_model_that_another_worker_serves_is_answered_by_that_one(own_broker: Mosquitto, tmp_path: Path) -> None:
    with (
        RedisServer() as store,
        served(own_broker, store, config(tmp_path, "one", "small", "big")) as one,
        served(own_broker, store, config(tmp_path, "two", "big", "small")) as two,
    ):
        for model in ("small", "big", "big", "small", "small", "big"):
            asked = inferbus(
                *("ask", "--broker", own_broker.url, "--session", "s1", "--model", model, "--json", "hello")
            )
            assert asked.returncode == 0, asked.stderr
            answer = json.loads(asked.stdout)
            assert (answer["model"], answer["text"]) == (model, "hello")
        shown = inferbus("status", "--once", "--broker", own_broker.url).stdout
        assert f"  big: {two.id}\n" in shown
        assert f"  small: {one.id}\n" in shown


def readyz(port: int) -> tuple[int, Mapping[str, object]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read())


def test_presence_and_readiness_say_that_the_store_is_away(own_broker: Mosquitto) -> None:
    port = free_port()
    with (
        RedisServer() as store,
        WorkerProcess(own_broker, state=store.url, http=str(port)) as worker,
        Listener(own_broker, topics.presence(worker.id)) as listener,
    ):
        until(lambda: bool(listener.heard))
        assert readyz(port)[0] == 200

        def presence() -> Presence:
            return Presence.model_validate_json(listener.heard[-1].payload)

        os.kill(store.pid, signal.SIGSTOP)
        try:
            until(lambda: presence().state == "loading")
            assert "does not answer in time" in (presence().reason or "")
            status, said = readyz(port)
            assert status == 503
            assert "does not answer in time" in json.dumps(said)
        finally:
            os.kill(store.pid, signal.SIGCONT)
        until(lambda: presence().state == "ready")
        assert presence().reason is None
        until(lambda: readyz(port)[0] == 200)


def test_a_worker_that_waits_for_its_store_says_so_at_once_and_goes_on_when_it_is_there(own_broker: Mosquitto) -> None:
    with RedisServer() as store:
        store.kill()
        with starting(own_broker, "--state", store.url, "--broker-timeout", "5m") as worker:
            worker.says("Connection refused; it is tried again for 5m")
            store.start()
            worker.says("ready: serving simulated to general, in group inferbus")
            assert worker.err.count("it is tried again") == 1


def test_what_waiting_does_not_change_about_the_store_is_said_at_once(own_broker: Mosquitto, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.server()
    options = ["--tls-port", str(free_port()), "--tls-cert-file", str(own.cert), "--tls-key-file", str(own.key)]
    options += ["--tls-ca-cert-file", str(authority.cert), "--tls-auth-clients", "no"]
    with RedisServer("--requirepass", "geheim", *options, password="geheim") as store:  # noqa: S106 - no one's
        there = f"127.0.0.1:{store.port}"
        for url, status, words in (
            (f"redis://{there}", 3, "asks for a password, and none was given"),
            (f"redis://:wrong@{there}", 3, "refuses this user or password"),
            (f"redis://:geheim@{there}/99", 3, "has no database of that number"),
            (f"rediss://:geheim@127.0.0.1:{options[1]}", 3, "has a certificate that is not trusted"),
            (f"rediss://:geheim@127.0.0.1:{options[1]}?cafile=/no/ca", 2, "cannot read /no/ca"),
        ):
            with starting(own_broker, "--state", url, "--broker-timeout", "10m") as worker:
                assert worker.wait(60) == status
                assert words in worker.err
                assert "it is tried again" not in worker.err


def test_a_key_of_somebody_else_s_is_named_once_and_all_is_well_when_it_is_gone(own_broker: Mosquitto) -> None:
    key = "inferbus:1:{inferbus}:leases"
    with RedisServer() as store, store.client() as client:
        client.set(key, "x")
        with starting(own_broker, "--state", store.url, "--broker-timeout", "10m") as refused:
            assert refused.wait(60) == 3
            assert key in refused.err
        client.delete(key)
        with starting(own_broker, "--state", store.url) as worker:
            worker.says("ready: serving")
            client.set(key, "x")
            worker.says(f"something of somebody else's (string) at {key}")
            asked = inferbus("ask", "--broker", own_broker.url, "--retries", "0", "hello")
            assert "Try again in 1 s" in asked.stderr
            client.delete(key)
            until(lambda: inferbus("ask", "--broker", own_broker.url, "hello").stdout == "hello\n")
            assert "Traceback" not in worker.err
            assert worker.err.count(key) == 1


def test_a_worker_with_another_store_than_its_group_does_not_start(own_broker: Mosquitto) -> None:
    """Half of each conversation would be there, and half here. A store that was emptied is still the same one."""
    with RedisServer() as store, store.client() as client, starting(own_broker, "--state", store.url) as first:
        first.says("ready: serving")
        elsewhere = f"{store.url.removesuffix('/0')}/3"
        with starting(own_broker, "--state", elsewhere, "--worker-id", "astray") as astray:
            assert astray.wait(60) == 6
            assert "in group inferbus but with another --state" in astray.err
        client.flushall()
        until(lambda: client.exists("inferbus:1:{inferbus}:mark"))
        with starting(own_broker, "--state", store.url, "--worker-id", "second") as second:
            second.says("ready: serving")


def test_a_turn_that_cannot_be_written_ends_with_an_error(own_broker: Mosquitto) -> None:
    """Something of somebody else's lies where its session's history was, of which the worker has a copy at hand."""
    with RedisServer() as store, store.client() as client, starting(own_broker, "--state", store.url) as worker:
        worker.says("ready: serving")
        say = ["ask", "--broker", own_broker.url, "--retries", "0", "--session", "s", "hello"]
        assert inferbus(*say).stdout == "hello\n"
        (history,) = client.keys("inferbus:1:history:*")
        client.set(history, "x")
        assert "The model failed to answer" in inferbus(*say).stderr
        worker.says("a turn could not be written to its session")


def test_a_worker_that_runs_waits_for_its_store_to_take_it_in_again(own_broker: Mosquitto) -> None:
    """Somebody may be changing the password, there first and here second, or the other way."""
    with RedisServer() as store, starting(own_broker, "--state", store.url) as worker, store.client() as client:
        worker.says("ready: serving")
        client.config_set("requirepass", "geheim")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        worker.says("asks for a password, and none was given")
        client.config_set("requirepass", "")
        until(lambda: inferbus("ask", "--broker", own_broker.url, "hello").stdout == "hello\n")
        assert worker.process.poll() is None


def test_of_a_worker_that_was_killed_status_does_not_say_since_when(own_broker: Mosquitto) -> None:
    """What the broker says then was written when it started: `offline 7m` of one that was there a moment ago."""
    with (
        WorkerProcess(own_broker) as worker,
        Listener(own_broker, topics.presence(worker.id)) as listener,
    ):
        worker.kill()
        until(lambda: b'"offline"' in b"".join(message.payload for message in listener.heard))
    assert Presence.model_validate_json(listener.heard[-1].payload).since is None
    shown = inferbus("status", "--once", "--broker", own_broker.url).stdout
    (line,) = [line for line in shown.splitlines() if worker.id in line]
    assert line.split()[:3] == [worker.id, "offline", "simulated"]
