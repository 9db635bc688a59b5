"""examples/browser in a real Chromium, which reaches a real broker over WebSocket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from support.example_bus import LIMITED, LONG, OPEN, ExampleBus, copy
from support.mosquitto import HOST
from support.needs import needs_program
from support.node import run_node, with_packages
from support.other_brokers import MosquittoOverWebSocket

pytestmark = pytest.mark.timeout(700)  # npm may have to install what the tests need


class Strict(MosquittoOverWebSocket):
    """Nobody gets in without a password."""

    def _lines(self) -> list[str]:
        return [line for line in super()._lines() if not line.startswith("allow_anonymous")]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
        """Nobody wants to read of each file."""


@pytest.fixture
def page(tmp_path: Path) -> Iterator[str]:
    """Where the page is served, as `python3 -m http.server` serves it."""
    needs_program("chromium")
    needs_program("node")
    folder = copy("browser", tmp_path, with_packages())
    with ThreadingHTTPServer((HOST, 0), partial(Quiet, directory=str(folder))) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://{HOST}:{server.server_port}/"
        server.shutdown()
        serving.join()


def seen(page: str, bus: ExampleBus, *questions: str, project: str = OPEN) -> list[dict[str, Any]]:
    """What the page showed of each question's answer; it went on as if nothing were."""
    query = urlencode({"broker": bus.broker.url, "project": project, "session": f"browser-{project}"})
    found = json.loads(run_node("browser.mjs", needs_program("chromium"), f"{page}?{query}", *questions))
    assert found["errors"] == []
    assert found["title"] == "Inferbus in a browser"
    answers: list[dict[str, Any]] = found["answers"]
    return answers


def test_an_answer_grows_as_text_and_one_that_is_cancelled_stops(page: str, bus: ExampleBus) -> None:
    markup = "one <img src=x onerror=\"document.title='taken'\"> <script>document.title='taken'</script> two"
    whole, cut, after = seen(page, bus, markup, f"{LONG}…", "three")
    assert (whole["text"], whole["elements"]) == (markup, 0)
    assert whole["states"][0] == "Sent."
    assert whole["states"][1].startswith("Waiting: 0 before this one")
    assert "Answering." in whole["states"]
    assert whole["states"][-1] == "Done."
    assert cut["text"].startswith("on and on ")
    assert cut["states"][-1] == "Error: Request cancelled."
    assert (after["text"], after["states"][-1]) == ("three", "Done.")


def test_why_there_is_no_connection_stays_to_be_read(page: str) -> None:
    with Strict() as broker:
        refusal = "The broker refuses: Connection refused: Not authorized. No connection; trying again."
        says(f"{page}?broker={broker.url}", refusal)


def test_what_can_never_work_is_said_when_connect_is_pressed(page: str, tmp_path: Path, bus: ExampleBus) -> None:
    says(f"{page}?broker={bus.broker.url}&session=a%20b", "?session= is not an id: letters, digits and _.:- alone.")
    (tmp_path / "browser/node_modules").unlink()
    says(page, "mqtt.js is not here: run npm install in this folder, and load the page again.")


def says(url: str, words: str) -> None:
    """Wait until the page says so after Connect was pressed."""
    assert json.loads(run_node("browser.mjs", needs_program("chromium"), url, "--until", words))["errors"] == []


def test_a_refusal_is_said_and_waited_out(page: str, bus: ExampleBus) -> None:
    first, second = seen(page, bus, "one", "two", project=LIMITED)
    assert [first["text"], second["text"]] == ["one", "two"]
    assert any("Trying again" in state for state in second["states"])
