"""Two workers of one id, and what looks like them and is not. Trial 6 counts how often they throw each other out."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from inferbus_client.contract.presence import Instance, Presence
from inferbus_client.exits import Exit
from support.listener import Listener
from support.mosquitto import Mosquitto, mosquitto_pub, mosquitto_sub
from support.scripts import Running
from support.waiting import until
from support.worker import WorkerProcess

OPTIONS: dict[str, Any] = {"project": "rivals", "rate_limit": "off"}
LEFT_OVER = Instance(mark="left-over", started=1000.0, connection=3)


@contextmanager
def twin(worker: WorkerProcess, broker: Mosquitto, **options: Any) -> Iterator[WorkerProcess]:
    """Another worker of the same id; it need not become ready, or live long."""
    with WorkerProcess(broker, worker_id=worker.id, **{**OPTIONS, **options}) as second:
        yield second


def one_ends(*workers: WorkerProcess) -> WorkerProcess:
    until(lambda: any(worker.process.poll() is not None for worker in workers))
    (left,) = [worker for worker in workers if worker.process.poll() is None]
    return left


def comes_back(worker: WorkerProcess) -> int:
    return worker.log.count('"connected again"')


def serves(broker: Mosquitto) -> None:
    """Somebody answers, at last."""
    with Listener(broker, "rivals/assistant_response/#") as listener:

        def answered() -> bool:
            mosquitto_pub(broker, "rivals/user_input/s1", "anyone there?")
            return "anyone there?" in {heard.text for heard in listener.heard}

        until(answered, every=0.2)


@pytest.mark.parametrize("options", [{"ack": "after-reply"}, {"simulated_first_token": "1m"}], ids=str)
def test_the_second_ends(own_broker: Mosquitto, tmp_path: Path, options: dict[str, Any]) -> None:
    """Also where both share what the broker kept for their id, and also before its model is there."""
    with (
        WorkerProcess(
            own_broker, **{**OPTIONS, "ack": options.get("ack", "on-receipt"), "state_dir": tmp_path}
        ) as first,
        twin(first, own_broker, state_dir=tmp_path, **options) as second,
    ):
        assert one_ends(first, second) is first
        assert second.process.returncode == Exit.ID_TAKEN
        assert f"another worker already has the id '{first.id}'" in second.log
        serves(own_broker)
        assert json.loads(mosquitto_sub(own_broker, f"inferbus/workers/{first.id}/status"))["state"] == "ready"


def test_what_the_second_was_given_meanwhile_does_not_hold_it(own_broker: Mosquitto, tmp_path: Path) -> None:
    """Nobody would hear its answers. The broker gives it the first one's requests, and those back to the first."""
    options = {**OPTIONS, "ack": "after-reply", "simulated_per_token": "10m"}
    request = json.dumps({"message": "one two", "reply": "json"})
    with (
        WorkerProcess(own_broker, **options, state_dir=tmp_path / "1", drain_timeout="0s") as first,
        Listener(own_broker, "rivals/assistant_response/#") as listener,
    ):
        mosquitto_pub(own_broker, "rivals/user_input/s1", request)
        listener.wait(1)  # accepted
        # Without a look at who is there, which takes so long that it would be gone before it was given anything.
        hasty: dict[str, Any] = {"state_dir": tmp_path / "2", "drain_timeout": "10m", "alongside": True}
        for _ in range(5):
            with twin(first, own_broker, **options, **hasty) as second:
                assert one_ends(first, second) is first
            if len(listener.heard) > 1:  # else it was gone all the same before it was given anything
                break
        said = [json.loads(heard.payload)["type"] for heard in listener.wait(2)]
        assert set(said) == {"accepted"}


@pytest.mark.slow
def test_of_three_the_first_stays(own_broker: Mosquitto) -> None:
    with (
        WorkerProcess(own_broker, **OPTIONS) as first,
        twin(first, own_broker) as second,
        twin(first, own_broker) as third,
    ):
        until(lambda: None not in {second.process.poll(), third.process.poll()})
        assert first.process.poll() is None
        serves(own_broker)


@pytest.mark.slow
def test_a_worker_that_was_killed_leaves_its_place_to_the_next(own_broker: Mosquitto) -> None:
    with WorkerProcess(own_broker, **OPTIONS) as worker:
        for _ in range(3):
            worker.kill()
            worker.start()
        serves(own_broker)
        assert comes_back(worker) == 0


class KeepingMosquitto(Mosquitto):
    """Keeps what is retained over a restart, and writes it down when it is stopped in order only."""

    def _lines(self) -> list[str]:
        lines = [line for line in super()._lines() if line != "persistence false"]
        return [*lines, "persistence true", f"persistence_location {self.folder}/", "autosave_interval 0"]


def test_what_an_earlier_run_left_behind_stops_nobody() -> None:
    """Not even where the broker crashes, and comes back with what stood there before our own presence."""
    topic = "inferbus/workers/kept/status"
    left_over = Presence(worker="kept", state="offline", instance=LEFT_OVER).encode()
    with KeepingMosquitto() as broker:
        mosquitto_pub(broker, topic, left_over, "-r")
        broker.restart()
        with WorkerProcess(broker, worker_id="kept", **OPTIONS) as worker:
            for lost in range(1, 4):
                broker.kill()
                broker.start()
                until(lambda: comes_back(worker) >= lost)  # noqa: B023
                serves(broker)
            assert worker.process.poll() is None
        broker.kill()
        broker.start()
        assert mosquitto_sub(broker, topic) == left_over.decode()  # so it did come back


@pytest.mark.slow
def test_made_up_presences_end_nobody(own_broker: Mosquitto) -> None:
    """Where there are no access rules anyone may write our presence. One lost connection and two words were enough."""
    numbers = itertools.count(1)
    with WorkerProcess(own_broker, **OPTIONS) as worker:

        def made_up() -> None:
            instance = LEFT_OVER.model_copy(update={"connection": next(numbers)})
            presence = Presence(worker=worker.id, state="ready", instance=instance)
            mosquitto_pub(own_broker, f"inferbus/workers/{worker.id}/status", presence.encode())

        began = time.monotonic()
        until(lambda: time.monotonic() - began > 6)  # a connection that is lost at once may be a rival's doing
        made_up()
        own_broker.kill()
        own_broker.start()
        until(lambda: comes_back(worker))
        for _ in range(5):
            made_up()
        serves(own_broker)
        assert worker.process.poll() is None


def test_what_another_leaves_behind_it_does_not_stand_there_for_long(own_broker: Mosquitto) -> None:
    """A broker may publish a second worker's Last Will when the first is back, and has said that it is ready."""
    with WorkerProcess(own_broker, **OPTIONS) as worker:
        topic = f"inferbus/workers/{worker.id}/status"
        for instance in (LEFT_OVER, None):
            mosquitto_pub(
                own_broker, topic, Presence(worker=worker.id, state="offline", instance=instance).encode(), "-r"
            )
            until(lambda: json.loads(mosquitto_sub(own_broker, topic))["state"] == "ready")


class TestWherePresenceCannotBeRead:
    """The broker grants the subscription, as Mosquitto does with a file of rules, and delivers nothing."""

    @pytest.fixture
    def silent_broker(self, tmp_path: Path) -> Iterator[Mosquitto]:
        rules = tmp_path / "rules"
        rules.write_text("topic readwrite rivals/#\ntopic write inferbus/#\nuser watcher\ntopic read inferbus/#\n")
        rules.chmod(0o600)
        with Mosquitto(f"acl_file {rules}") as broker:
            yield broker

    def test_one_of_two_ends(self, silent_broker: Mosquitto) -> None:
        with serving(silent_broker, "twins") as first, serving(silent_broker, "twins") as second:
            until(lambda: None in {first.process.poll(), second.process.poll()} != {None})
            ended = first if first.process.poll() is not None else second
            assert ended.process.returncode == Exit.BROKER
            assert "'inferbus-worker-twins' in use twice?" in ended.err
            serves(silent_broker)

    def test_a_lost_broker_ends_nobody(self, silent_broker: Mosquitto) -> None:
        with serving(silent_broker, "alone") as worker:
            silent_broker.restart()
            worker.says("connected again")
            serves(silent_broker)


@contextmanager
def serving(broker: Mosquitto, worker: str) -> Iterator[Running]:
    """A worker that is ready by its own word: nobody else hears of it here."""
    command = [sys.executable, "-m", "inferbus_worker", "serve", "--engine", "simulated", "--broker", broker.url]
    with Running([*command, "--project", "rivals", "--worker-id", worker, "--rate-limit", "off"]) as running:
        running.says("ready: serving")
        yield running
