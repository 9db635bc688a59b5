"""Two workers on one project would answer every request twice: the second is refused, unless it is told otherwise."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Instance, Presence
from inferbus_client.exits import Exit
from support.inferbus import inferbus
from support.listener import Listener
from support.mosquitto import Mosquitto, mosquitto_pub
from support.waiting import until
from support.worker import WorkerProcess, starting

OPTIONS: dict[str, Any] = {"project": "shop", "rate_limit": "off"}


def answers(
    broker: Mosquitto, topic: str = "shop/user_input/s1", replies: str = "shop/assistant_response/#", expected: int = 1
) -> int:
    """How many answers one request has; so many are waited for."""
    with Listener(broker, replies) as listener:
        for question in ("anyone there?", "last"):
            listener.publish(topic, question)
            until(lambda: question in {heard.text for heard in listener.heard})  # noqa: B023
        until(lambda: sum(heard.text == "anyone there?" for heard in listener.heard) >= expected)
        time.sleep(0.3)  # one more would come with it
        return sum(heard.text == "anyone there?" for heard in listener.heard)


@pytest.fixture(scope="module")
def crowded() -> Iterator[Mosquitto]:
    """A broker where one worker serves `shop` and `office`."""
    with Mosquitto() as broker, WorkerProcess(broker, worker_id="first", project=["shop", "office"], rate_limit="off"):
        yield broker


class TestTheSecond:
    def test_is_refused_in_words(self, crowded: Mosquitto) -> None:
        with starting(crowded, "--worker-id", "second", "--project", "shop") as second:
            assert second.wait(60) == Exit.ID_TAKEN
            assert "worker 'first' already serves project shop (started 2" in second.err
            assert "--alongside" in second.err
            assert "ready: serving" not in second.err
        assert answers(crowded) == 1

    def test_leaves_no_word_of_itself(self, crowded: Mosquitto) -> None:
        with starting(crowded, "--worker-id", "second", "--project", "shop") as second:
            assert second.wait(60) == Exit.ID_TAKEN
        assert list(json.loads(inferbus("status", "--once", "--json", "--broker", crowded.url).stdout)) == ["first"]

    def test_answers_nothing_meanwhile(self, crowded: Mosquitto) -> None:
        """Not even that its model is loading."""
        with (
            Listener(crowded, "shop/assistant_response/#") as listener,
            starting(crowded, "--worker-id", "second", "--project", "shop") as second,
        ):
            asked = 0
            while second.process.poll() is None:
                listener.publish(f"shop/user_input/meanwhile-{asked}", str(asked))
                asked += 1
            until(lambda: len(listener.heard) >= asked)
            assert sorted(heard.text for heard in listener.heard) == sorted(map(str, range(asked)))

    def test_is_told_which_projects_of_several(self, crowded: Mosquitto) -> None:
        others = ("--project", "garden", "--project", "office", "--project", "shop")
        with starting(crowded, "--worker-id", "second", *others) as second:
            assert second.wait(60) == Exit.ID_TAKEN
            assert "already serves projects office, shop (" in second.err

    @pytest.mark.parametrize(
        "arguments", [("--project", "garden"), ("--project", "shop", "--alongside"), ("--identity", "topic")], ids=str
    )
    def test_is_let_in(self, crowded: Mosquitto, arguments: tuple[str, ...]) -> None:
        """With projects of its own, on topics of its own, or where it is told."""
        with starting(crowded, "--worker-id", "second", *arguments) as second:
            second.says("ready: serving")
            expected = 2 if "--alongside" in arguments else 1
            assert answers(crowded, expected=expected) == expected

    def test_is_refused_with_identities_too(self, own_broker: Mosquitto) -> None:
        with (
            WorkerProcess(own_broker, worker_id="first", identity="topic", **OPTIONS),
            starting(own_broker, "--worker-id", "second", "--identity", "topic", "--project", "shop") as second,
        ):
            assert second.wait(60) == Exit.ID_TAKEN
            asked = ("shop/users/alice/user_input/s1", "shop/users/alice/assistant_response/#")
            assert answers(own_broker, *asked) == 1

    def test_is_refused_while_the_first_still_loads(self, own_broker: Mosquitto) -> None:
        with starting(own_broker, "--worker-id", "first", "--simulated-first-token", "1m") as first:
            first.says("loading simulated")
            with starting(own_broker, "--worker-id", "second") as second:
                assert second.wait(60) == Exit.ID_TAKEN
            assert first.process.poll() is None

    def test_hears_sigterm_while_it_looks(self, own_broker: Mosquitto) -> None:
        announce(own_broker, "gone", "ready")
        with (
            Listener(own_broker, topics.stats_request("gone")) as questions,
            starting(own_broker, "--worker-id", "second", "--project", "shop") as second,
        ):
            questions.wait(1)
            second.process.send_signal(signal.SIGTERM)
            assert second.wait(60) == 0
            assert "does not answer" not in second.err

    @pytest.mark.slow
    def test_takes_the_place_of_one_that_drains(self, own_broker: Mosquitto) -> None:
        """A rolling restart: what the old one still has to do, it does."""
        options = {**OPTIONS, "simulated_per_token": "3s", "worker_id": "old"}
        with (
            WorkerProcess(own_broker, **options) as old,
            Listener(own_broker, topics.presence("old"), "shop/assistant_response/#") as listener,
        ):
            mosquitto_pub(own_broker, "shop/user_input/s1", "one two three four five")
            until(lambda: b'"active":1' in stats_of(own_broker, "old"))
            old.process.send_signal(signal.SIGTERM)
            until(lambda: any(b'"draining"' in heard.payload for heard in listener.heard))
            with WorkerProcess(own_broker, worker_id="new", **OPTIONS):
                assert old.process.poll() is None
                until(lambda: any("five" in heard.text for heard in listener.heard))


def stats_of(broker: Mosquitto, worker: str) -> bytes:
    with Listener(broker, topics.stats(worker)) as listener:
        listener.publish(topics.stats_request(worker), "")
        return listener.wait(1)[-1].payload


def announce(broker: Mosquitto, worker: str, state: str, **more: Any) -> None:
    """What a worker that was killed, with its broker, has left behind; or what somebody made up."""
    presence = Presence.model_validate({"worker": worker, "state": state, "projects": ["shop"], **more})
    mosquitto_pub(broker, topics.presence(worker), presence.encode(), "-r")


class TestPresenceAlone:
    def test_of_a_worker_that_does_not_answer_stops_nobody(self, own_broker: Mosquitto) -> None:
        for number in range(3):
            announce(own_broker, f"gone-{number}", "ready", instance={"mark": "x", "started": 1.0})
        with WorkerProcess(own_broker, **OPTIONS) as worker:
            assert "gone-1" in worker.log

    def test_ends_no_worker_that_serves(self, own_broker: Mosquitto) -> None:
        earlier = Instance(mark="earlier", started=1.0)
        with WorkerProcess(own_broker, **OPTIONS) as worker, Listener(own_broker, "inferbus/#") as listener:
            for number in range(20):
                instance = {**earlier.model_dump(), "connection": number + 1}
                for name in ("another", worker.id):
                    announce(own_broker, name, "ready", instance=instance)
                listener.publish(topics.stats("another"), json.dumps({"worker": "another"}))
            assert answers(own_broker) == 1
            assert worker.process.poll() is None

    def test_that_cannot_be_read_stops_nobody(self, tmp_path: Path) -> None:
        """The broker grants the subscription, as Mosquitto does with a file of rules, and delivers nothing."""
        rules = tmp_path / "rules"
        rules.write_text("topic readwrite shop/#\ntopic write inferbus/#\n")
        rules.chmod(0o600)
        with Mosquitto(f"acl_file {rules}") as broker:
            for name in ("first", "second"):
                with starting(broker, "--worker-id", name, "--project", "shop") as worker:
                    worker.says("ready: serving")
                    assert "whether another worker serves our projects is not known" in worker.err


def test_a_worker_that_comes_back_is_not_refused(own_broker: Mosquitto) -> None:
    with WorkerProcess(own_broker, **OPTIONS) as worker:
        for end in (worker.kill, worker.stop):
            end()
            worker.start()
        assert answers(own_broker) == 1
