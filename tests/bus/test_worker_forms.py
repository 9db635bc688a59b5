"""Over the bus: answers in a given form hold up nobody but each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.listener import Heard, Listener
from support.mosquitto import Mosquitto
from support.waiting import until

StartWorker = Callable[..., Any]

FORM = {"response_format": {"type": "json_object"}}
#: A grammar that is never compiled.
HANGING: dict[str, Any] = {"workers": 4, "simulated_grammar": "10m", "drain_timeout": "0s"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "worker.yaml"
    file.write_text("projects:\n  forms:\n    response_format: true\n  plain: {}\n")
    return file


def ask(listener: Listener, project: str, session: str, **fields: Any) -> None:
    body = {"message": "hello", "sessionId": session, "reply": "json", **fields}
    listener.publish(f"{project}/user_input", json.dumps(body))


def ended(heard: list[Heard]) -> dict[str, dict[str, Any]]:
    """The terminal replies, by session."""
    messages = [json.loads(message.text) for message in heard]
    return {message["sessionId"]: message for message in messages if message["type"] in {"done", "error"}}


def ends_of(listener: Listener, count: int) -> dict[str, dict[str, Any]]:
    until(lambda: len(ended(listener.heard)) >= count)
    return ended(listener.heard)


def test_grammars_without_end_leave_half_of_the_workers_to_the_others(
    broker: Mosquitto, start_worker: StartWorker, config: Path
) -> None:
    worker = start_worker(config=config, **HANGING)
    with Listener(broker, "forms/assistant_response/+", "plain/assistant_response/+") as listener:
        for number in range(16):
            ask(listener, "forms", f"s{number}", params=FORM)
        refused = ends_of(listener, 14).values()
        assert {(reply["code"], reply["retryAfterMs"] >= 1000) for reply in refused} == {("overloaded", True)}
        ask(listener, "plain", "p")
        ask(listener, "forms", "also-plain")
        plain = ends_of(listener, 16)
    assert (plain["p"]["type"], plain["also-plain"]["type"]) == ("done", "done")
    assert worker.process.poll() is None


def test_one_that_does_not_begin_ends_in_the_time_that_the_worker_allows(
    broker: Mosquitto, start_worker: StartWorker, config: Path
) -> None:
    start_worker(config=config, **HANGING, form_timeout="500ms")
    with Listener(broker, "forms/assistant_response/+") as listener:
        for number in range(2):
            ask(listener, "forms", f"s{number}", params=FORM)
        outcomes = ends_of(listener, 2)
        ask(listener, "forms", "next", params=FORM)
        outcomes = ends_of(listener, 3)
    assert {reply["code"] for reply in outcomes.values()} == {"deadline_exceeded"}
    assert all("did not begin" in reply["message"] for reply in outcomes.values())


def test_an_engine_whose_forms_never_begin_is_given_up_while_plain_answers_go_on(
    broker: Mosquitto, start_worker: StartWorker, config: Path
) -> None:
    worker = start_worker(config=config, **HANGING, form_timeout="500ms", engine_silence="1s")
    with Listener(broker, "forms/assistant_response/+") as listener:
        ask(listener, "forms", "s", params=FORM)
        ends_of(listener, 1)
        ask(listener, "forms", "plain")
        assert ends_of(listener, 2)["plain"]["type"] == "done"
        assert worker.process.wait(60) == 1
    assert "no answer to one token in a given form within 1 s" in worker.log
