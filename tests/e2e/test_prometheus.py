"""deploy/prometheus and deploy/grafana: a real Prometheus scrapes a real worker, and has an answer to every query."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

import pytest
import yaml

from inferbus_client import Client
from support.listener import Listener
from support.mosquitto import HOST, Mosquitto, free_port
from support.needs import needs_module, needs_program
from support.redis_server import RedisServer
from support.scripts import ROOT, Running
from support.waiting import PATIENCE, until

RULES: Final = ROOT / "deploy/prometheus/rules.yml"
CONFIG: Final = ROOT / "deploy/prometheus/prometheus.yml"
SCALING: Final = ROOT / "deploy/kubernetes/scaling.yaml"
BOARD: Final = json.loads((ROOT / "deploy/grafana/inferbus.json").read_text())
TOKEN: Final = "a-token-of-the-tests"  # noqa: S105

#: What has no answer while all is well: these compare, and select what is not as it should be.
_SELECTS: Final = re.compile(r"\s(==|>|<|>=|<=)\s")


def expressions() -> list[str]:
    """Every query, as it is asked; of a comparison what is compared, since while all is well nothing comes of it."""
    rules = [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    targets = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
    scaling = [trigger["metadata"]["query"] for trigger in yaml.safe_load(SCALING.read_text())["spec"]["triggers"]]
    asked = [
        expression.replace("$worker", ".*").replace("$__rate_interval", "10s").replace("[5m]", "[10s]")
        for expression in (*rules, *targets, *scaling)
    ]
    return [_SELECTS.split(one)[0] for one in asked]


class Prometheus:
    """A context manager: inside the `with` it scrapes one worker twice a second."""

    def __init__(self, folder: Path, target: int) -> None:
        self.port = free_port()
        settings = yaml.safe_load(CONFIG.read_text())
        settings["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
        settings["scrape_configs"][0]["static_configs"][0]["targets"] = [f"{HOST}:{target}"]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
        (folder / "rules.yml").write_text(RULES.read_text())
        (folder / "token").write_text(TOKEN)
        subprocess.run([needs_program("promtool"), "check", "config", str(folder / "prometheus.yml")], check=True)
        self._server = Running(
            [
                *(needs_program("prometheus"), f"--config.file={folder / 'prometheus.yml'}"),
                *(f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={HOST}:{self.port}"),
            ]
        )

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.__exit__(kind, error, at)

    def ask(self, path: str, **query: str) -> Any:
        with closing(http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)) as connection:
            connection.request("GET", f"/api/v1/{path}?{urlencode(query)}")
            answer = json.load(connection.getresponse())
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[Any]:
        found: list[Any] = self.ask("query", query=expression)["result"]
        return found

    def is_up(self) -> bool:
        try:
            return [one["value"][1] for one in self.query('up{job="inferbus"}')] == ["1"]
        except (OSError, ValueError):  # it says in words that it is not ready
            return False


@pytest.fixture
def worker_port() -> int:
    needs_module("prometheus_client")
    return free_port()


@pytest.fixture
def prometheus(
    own_broker: Mosquitto, start_worker: Callable[..., Any], tmp_path: Path, worker_port: int
) -> Iterator[Prometheus]:
    token = tmp_path / "worker-token"
    token.write_text(TOKEN)
    folder = tmp_path / "prometheus"
    folder.mkdir()
    with RedisServer() as store:
        # Of a group, since what scales on the queue that its workers share is asked as well.
        start_worker(broker=own_broker, http=worker_port, http_token_file=token, rate_limit="5/60s", state=store.url)
        with Prometheus(folder, worker_port) as running:
            until(running.is_up)
            yield running


def load(broker: Mosquitto) -> None:
    """Answers, a stream, and refusals."""
    with Client(broker.url, pacing=0) as client:
        for number in range(20):
            client.ask("hello", session=f"s{number}")
            for _delta in client.stream("hello again", session=f"t{number}"):
                pass
    with Listener(broker, "general/assistant_response/+") as listener:
        for number in range(10):
            listener.publish("general/user_input/busy", "hello")
            listener.wait(number + 1)


def test_every_query_of_board_and_rules_has_an_answer(own_broker: Mosquitto, prometheus: Prometheus) -> None:
    assert len(expressions()) > 25
    # Errors have a kind, of which there is none while a slot fails nothing.
    missing = {one for one in expressions() if "slot_errors" not in one}

    def all_answered() -> bool:
        load(own_broker)
        missing.difference_update([one for one in missing if prometheus.query(one)])
        return not missing

    until(all_answered)


def test_the_rules_are_evaluated_and_the_one_that_holds_is_pending(
    own_broker: Mosquitto, prometheus: Prometheus
) -> None:
    own_broker.kill()

    def states() -> dict[str, str]:
        groups = prometheus.ask("rules")["groups"]
        return {rule["name"]: rule["state"] for group in groups for rule in group["rules"] if rule["health"] == "ok"}

    until(lambda: states().get("InferbusNotReady") == "pending")
    assert len(states()) == 8
    assert states()["InferbusWorkerGone"] == "inactive"
    own_broker.start()


def test_promtool_finds_nothing_wrong(prometheus: Prometheus, worker_port: int) -> None:
    assert prometheus.is_up()
    promtool = needs_program("promtool")
    subprocess.run([promtool, "check", "rules", str(RULES)], check=True)
    with closing(http.client.HTTPConnection(HOST, worker_port, timeout=PATIENCE)) as connection:
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        text = connection.getresponse().read()
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")


def test_every_alert_says_what_to_do_and_stands_on_the_page() -> None:
    page = (RULES.parent / "README.md").read_text()
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"].keys() == {"summary", "runbook"}
            assert f"| `{rule['alert']}` |" in page


def test_the_board_is_whole() -> None:
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    places = {(cell, row) for panel in BOARD["panels"] for cell, row in _cells(panel["gridPos"])}
    assert len(places) == sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in BOARD["panels"])
    assert {variable["name"] for variable in BOARD["templating"]["list"]} == {"source", "worker"}


def _cells(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    for cell in range(place["x"], place["x"] + place["w"]):
        for row in range(place["y"], place["y"] + place["h"]):
            yield cell, row
