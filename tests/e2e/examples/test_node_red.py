"""examples/node-red in a Node-RED of its own, headless."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.example_bus import EXAMPLES, LIMITED, OPEN, ExampleBus
from support.listener import Listener
from support.mosquitto import free_port
from support.needs import needs_program
from support.node import with_packages
from support.scripts import ROOT, Running

pytestmark = pytest.mark.timeout(700)  # npm may have to install Node-RED

#: Seconds that it may take to start on a busy machine.
START_TIMEOUT = 120


@pytest.fixture
def home(bus: ExampleBus, tmp_path: Path) -> Iterator[Listener]:
    """Hears what the flow answers; it asks the project that lets one request through in three seconds."""
    node = needs_program("node")
    packages = with_packages(ROOT / "tests/node-red")
    flow = json.loads((EXAMPLES / "node-red/flow.json").read_text().replace(f"{OPEN}/", f"{LIMITED}/"))
    (broker,) = (part for part in flow if part["type"] == "mqtt-broker")
    broker |= {"broker": bus.broker.host, "port": str(bus.broker.port)}
    (tmp_path / "flow.json").write_text(json.dumps(flow))
    red = [node, str(packages / "node_modules/node-red/red.js"), "--settings", str(packages / "settings.js")]
    red += ["--userDir", str(tmp_path), str(tmp_path / "flow.json")]
    with (
        Listener(bus.broker, "home/answer", "home/failure") as listener,
        Running(red, bus.environment(UI_PORT=str(free_port()))) as running,
    ):
        running.says("Connected to broker", START_TIMEOUT)
        # It subscribes only after it has said so, and what is retained waits for that.
        listener.publish("home/question", "Is anybody there?", retain=True)
        assert said(listener, 1) == ["home/answer Is anybody there?"]
        listener.publish("home/question", "", retain=True)  # forgotten, and asked: it is blank
        assert said(listener, 2)[1].startswith("home/failure Error: Invalid request.")
        listener.heard.clear()
        yield listener


def said(listener: Listener, count: int) -> list[str]:
    return [f"{heard.topic} {heard.text}" for heard in listener.wait(count)]


def test_questions_are_answered_though_they_come_too_often_and_what_strangers_reply_is_none(home: Listener) -> None:
    for reply in ('{"requestId": "__proto__", "type": "done"}', "null", "no JSON"):
        home.publish(f"{LIMITED}/assistant_response/node-red", reply)
    questions = ["naïve", '{"two": "<b>"}']
    for question in questions:
        home.publish("home/question", question)
    assert sorted(said(home, 2)) == sorted(f"home/answer {question}" for question in questions)
