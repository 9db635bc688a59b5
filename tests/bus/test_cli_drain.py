"""`inferbus drain`: what a worker's operator sees; the worker's bus stands for the worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence
from inferbus_client.exits import Exit
from support.inferbus import inferbus
from support.members import Member, member
from support.mosquitto import Mosquitto, mosquitto_pub
from support.waiting import until


@contextmanager
def serving(broker: Mosquitto, *, takes: float = 0, **more: Any) -> Iterator[Member]:
    """A worker that leaves when it is asked to, after so many seconds; the main thread's part is a thread's here."""
    done = threading.Event()
    with member(broker, "w1", **more) as one:
        one.bus.announce("ready")

        def live() -> None:
            until(lambda: one.drains or done.is_set())
            if not done.is_set():
                one.bus.announce("draining")
                assert one.bus.leave(20)
                done.wait(takes)
                one.bus.announce("offline")

        life = threading.Thread(target=live)
        life.start()
        try:
            yield one
        finally:
            done.set()
            life.join()


def test_it_returns_when_the_worker_has_left(own_broker: Mosquitto) -> None:
    with serving(own_broker, takes=3):
        run = inferbus("drain", "--broker", own_broker.url, "w1")
        assert (run.returncode, run.stdout) == (Exit.OK, "w1 has left\n"), run.stderr


def test_one_that_has_gone_already_has_left(own_broker: Mosquitto) -> None:
    gone = Presence(worker="gone", state="offline")
    mosquitto_pub(own_broker, topics.presence("gone"), gone.encode(), "-r")
    run = inferbus("drain", "--broker", own_broker.url, "gone")
    assert (run.returncode, run.stdout) == (Exit.OK, "gone was gone already\n")


def test_a_worker_that_does_not_allow_it_goes_on_and_the_operator_is_told(own_broker: Mosquitto) -> None:
    with serving(own_broker, remote_drain=False) as one:
        run = inferbus("drain", "--broker", own_broker.url, "w1")
        assert run.returncode == Exit.FAILED
        assert "'w1' does not react: either it does not allow that (--remote-drain" in run.stderr
        assert not one.drains


def test_it_waits_no_longer_than_it_is_told(own_broker: Mosquitto) -> None:
    with serving(own_broker, takes=600):
        run = inferbus("drain", "--broker", own_broker.url, "--wait", "3s", "w1")
        assert run.returncode == Exit.TIMEOUT
        assert "no end of worker 'w1' within 3 s" in run.stderr


def test_nobody_else(own_broker: Mosquitto) -> None:
    gone = Presence(worker="gone", state="offline").encode().decode()
    mosquitto_pub(own_broker, topics.presence("gone"), gone, "-r")
    run = inferbus("drain", "--broker", own_broker.url, "nope")
    assert run.returncode == Exit.FAILED
    assert "there is no worker 'nope' on this broker, nor any other" in run.stderr
    assert inferbus("drain", "--broker", own_broker.url, "a/b").returncode == Exit.USAGE
    assert inferbus("drain", "--broker", own_broker.url, "--wait", "long", "nope").returncode == Exit.USAGE


def test_where_it_is_not_allowed(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.write_text("topic read inferbus/#\nuser operator\ntopic readwrite inferbus/#\n")
    rules.chmod(0o600)
    with Mosquitto(f"acl_file {rules}") as broker:
        alive = Presence(worker="w1", state="ready")
        mosquitto_pub(broker, topics.presence("w1"), alive.encode(), "-r", "-u", "operator")
        run = inferbus("drain", "--broker", broker.url, "w1")
        assert run.returncode == Exit.FAILED
        assert "may not publish to inferbus/workers/w1/drain" in run.stderr
