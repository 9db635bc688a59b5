"""`inferbus conformance` against our own worker, and against one that does not keep to the contract."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from paho.mqtt.publish import single

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence
from support.fake_worker import Act, FakeWorker, accepted, delta, done
from support.inferbus import inferbus
from support.mosquitto import Mosquitto
from support.worker import WorkerProcess

PROMISE: Final = """
- name: somebody says goodbye
  half: text
  steps:
    - send: {topic: "{scope}/user_input/{session}", payload: Hello.}
    - expect: {text: Goodbye}
"""


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_our_worker_keeps_to_the_contract(own_broker: Mosquitto, version: str) -> None:
    with WorkerProcess(own_broker):
        run = inferbus("conformance", "--broker", own_broker.url, "--mqtt-version", version, "--json")
    verdicts = [json.loads(line) for line in run.stdout.splitlines()]
    assert [one for one in verdicts if not one["ok"]] == []
    assert run.returncode == 0, run.stderr
    assert {one["mqtt"] for one in verdicts} == {version}
    assert {one["half"] for one in verdicts} == {"text", "json", "announcements"}


def test_it_keeps_to_what_it_says_of_tools(own_broker: Mosquitto, tmp_path: Path) -> None:
    config = tmp_path / "worker.yaml"
    config.write_text("projects: {general: {tools: true}}\n")
    with WorkerProcess(own_broker, config=config):
        run = inferbus("conformance", "--broker", own_broker.url, "--tools", "--only", "call")
    assert run.returncode == 0, run.stdout
    assert "FAIL" not in run.stdout
    assert "a tool that has to be called is called, whole" in run.stdout


def test_it_keeps_to_it_on_its_users_own_topics(own_broker: Mosquitto) -> None:
    with WorkerProcess(own_broker, identity="topic"):
        way = ("--broker", own_broker.url, "--identity", "topic", "--user", "ann")
        run = inferbus("conformance", *way, "--mqtt-version", "5", "--only", "json:")
    assert run.returncode == 0, run.stdout


ONCE: Final = """
- name: nobody gets two ends
  half: json
  steps:
    - send:
        topic: "{scope}/user_input/{session}"
        json: {message: Hello., sessionId: "{session}", requestId: "{request}", replyTopic: "{home}", reply: json}
    - replies: {types: accepted done}
"""


def two_ends(request: Mapping[str, Any]) -> Iterable[Act]:
    yield accepted()
    yield done("Hello")
    yield done(f"Hello again, {request['message']}")


def test_a_worker_that_ends_a_request_twice_does_not(own_broker: Mosquitto, tmp_path: Path) -> None:
    (tmp_path / "once.yaml").write_text(ONCE)
    presence = Presence(worker="liar", state="ready", projects=("general",))
    with FakeWorker(own_broker.port, two_ends):
        single(topics.presence("liar"), presence.encode(), qos=1, retain=True, port=own_broker.port)
        run = inferbus("conformance", "--broker", own_broker.url, "--cases", str(tmp_path))
    assert run.returncode == 1
    assert "FAIL 3.1.1 json: nobody gets two ends" in run.stdout
    assert "nothing had to come" in run.stdout
    assert run.stdout.splitlines()[-1] == "0 of 2 hold"


def no_end(_request: Mapping[str, Any]) -> Iterable[Act]:
    yield accepted()
    for _ in range(3000):
        yield delta("on and ")


@pytest.mark.parametrize(
    ("only", "words"), [("two ends", "go on after 1000"), ("elsewhere", "more than 2000 messages")]
)
def test_a_worker_that_never_ends_holds_nobody_up(own_broker: Mosquitto, tmp_path: Path, only: str, words: str) -> None:
    elsewhere = ONCE.replace("nobody gets two ends", "elsewhere").replace("{types", '{topic: "{scope}/none", types')
    (tmp_path / "once.yaml").write_text(
        ONCE + elsewhere.replace("half: json", 'half: json\n  listen: ["{home}", "{scope}/none"]')
    )
    presence = Presence(worker="liar", state="ready", projects=("general",))
    with FakeWorker(own_broker.port, no_end):
        single(topics.presence("liar"), presence.encode(), qos=1, retain=True, port=own_broker.port)
        way = ("--broker", own_broker.url, "--cases", str(tmp_path), "--mqtt-version", "5", "--only", only)
        run = inferbus("conformance", *way, "--timeout", "20")
    assert run.returncode == 1
    assert words in run.stdout


def test_cases_of_one_s_own_are_played(own_broker: Mosquitto, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(PROMISE)
    with WorkerProcess(own_broker):
        run = inferbus("conformance", "--broker", own_broker.url, "--cases", str(tmp_path), "--mqtt-version", "5")
    assert run.returncode == 1
    assert "step 2: the text had to match 'Goodbye', and is" in run.stdout


def test_the_cases_are_listed_without_a_broker() -> None:
    run = inferbus("conformance", "--list", "--only", "text:")
    assert run.returncode == 0
    assert all(line.startswith("text: ") for line in run.stdout.splitlines())


def test_the_list_says_what_is_not_always_played() -> None:
    lines = inferbus("conformance", "--list").stdout.splitlines()
    assert "text: MQTT 5's correlation data come back (MQTT 5 alone)" in lines
    assert "json: a tool that must not be called is not (--tools)" in lines


def test_a_file_that_is_no_list_of_cases_is_said_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: one\n")
    run = inferbus("conformance", "--cases", str(tmp_path), "--list")
    assert (run.returncode, run.stderr) == (2, f"inferbus: {tmp_path}/mine.yaml: must be a list\n")


def test_a_choice_that_fits_nothing_is_said() -> None:
    run = inferbus("conformance", "--only", "no case has this")
    assert run.returncode == 2
    assert "--list" in run.stderr


def test_a_bus_without_a_worker_is_said(own_broker: Mosquitto) -> None:
    run = inferbus("conformance", "--broker", own_broker.url, "--first-timeout", "1s")
    assert run.returncode == 1
    assert "no worker that is ready serves general on this bus" in run.stderr


@pytest.mark.parametrize(
    ("worker", "project", "why"),
    [
        ("wokrer", "general", "nothing has come on inferbus/workers/wokrer/status; on this bus there is sleeper"),
        ("sleeper", "general", "sleeper is loading, not ready"),
        ("sleeper", "genral", "sleeper serves general, not genral"),
    ],
)
def test_a_named_worker_that_cannot_answer_is_said_before_anything_is_played(
    own_broker: Mosquitto, worker: str, project: str, why: str
) -> None:
    presence = Presence(worker="sleeper", state="loading", projects=("general",))
    single(topics.presence("sleeper"), presence.encode(), qos=1, retain=True, port=own_broker.port)
    way = ("--broker", own_broker.url, "--first-timeout", "1s", "--timeout", "1s", "--only", "presence")
    run = inferbus("conformance", *way, "--worker", worker, "--project", project)
    assert (run.returncode, run.stdout) == (1, "")
    assert why in run.stderr
