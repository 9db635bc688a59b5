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
        until(lambda: bool(listener.heard), 5)
        assert readyz(port)[0] == 200

        def presence() -> Presence:
            return Presence.model_validate_json(listener.heard[-1].payload)

        os.kill(store.pid, signal.SIGSTOP)
        try:
            until(lambda: presence().state == "loading", 10)
            assert "does not answer in time" in (presence().reason or "")
            status, said = readyz(port)
            assert status == 503
            assert "does not answer in time" in json.dumps(said)
        finally:
            os.kill(store.pid, signal.SIGCONT)
        until(lambda: presence().state == "ready", 10)
        assert presence().reason is None
        until(lambda: readyz(port)[0] == 200, 5)


def test_a_worker_that_waits_for_its_store_says_so_at_once_and_goes_on_when_it_is_there(own_broker: Mosquitto) -> None:
    with RedisServer() as store:
        store.kill()
        with starting(own_broker, "--state", store.url, "--broker-timeout", "5m") as worker:
            worker.says("Connection refused; it is tried again for 5m")
            store.start()
            worker.says("ready: serving simulated to general, in group inferbus")
            assert worker.err.count("it is tried again") == 1


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
