"""`inferbus status` of a worker with several models and slots: in a pipe, at terminals of any width, and as JSON."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pexpect
import pytest

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Latency, ModelStats, Presence, SlotStats, Stats
from support.fake_worker import FakeWorker
from support.inferbus import PROGRAM, environment, inferbus
from support.mosquitto import Mosquitto

SLOT = SlotStats(
    backend="llama.cpp",
    state="ready",
    active=2,
    limit=3,
    memory_measured=3 * 1024**3,
    requests=500,
    errors={"429": 41, "503": 52, "cut": 6},
    wait_ms=7,
    latency_ms=Latency(p50=101, p95=202, p99=303),
    first_token_ms=44,
    breaker="closed",
)
MODELS = {
    "phi": ModelStats(queued=9, state="ready", slots={"gpu1": SLOT, "gpu2": SlotStats(state="unavailable")}),
    "qwen": ModelStats(state="stopped"),
}
FIGURES = ["2/3", "3GiB", "500", "6", "41", "52", "7ms", "101ms", "202ms", "303ms", "44ms", "closed"]


@pytest.fixture(scope="module")
def served() -> Iterator[Mosquitto]:
    """A worker of two models, one of them in two slots, and one that has a single one."""
    with Mosquitto() as broker, FakeWorker(broker.port) as worker:
        states = {name: model.state for name, model in MODELS.items()}
        announce(worker, Presence(worker="many", state="ready", model="phi", models=states))
        announce(worker, Stats(worker="many", models=MODELS))
        announce(worker, Presence(worker="single", state="ready", model="tiny", models={"tiny": "ready"}))
        announce(worker, Stats(worker="single", models={"tiny": ModelStats(slots={"vllm": SlotStats()})}))
        yield broker


def announce(worker: FakeWorker, said: Presence | Stats) -> None:
    topic = topics.stats(said.worker) if isinstance(said, Stats) else topics.presence(said.worker)
    worker.publish(topic, said.encode(), retain=True)


def status(broker: Mosquitto, *arguments: str) -> subprocess.CompletedProcess[str]:
    return inferbus("status", "--once", "--broker", broker.url, *arguments)


def test_a_pipe_gets_a_line_for_each_slot(served: Mosquitto) -> None:
    lines = status(served).stdout.splitlines()
    (row,) = [line.split() for line in lines if "gpu1" in line]
    assert row[:4] == ["phi", "gpu1", "llama.cpp", "ready"]
    assert [figure for figure in FIGURES if figure not in row] == []
    assert [line.split()[:4] for line in lines if "gpu2" in line] == [["phi", "gpu2", "-", "unavailable"]]
    assert "stopped" in next(line for line in lines if line.split()[:1] == ["qwen"])


def test_a_worker_of_one_slot_has_no_line_more(served: Mosquitto) -> None:
    assert "vllm" not in status(served).stdout
    assert "breaker" not in status(served, "--worker", "single").stdout


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_terminal_of_any_width_cuts_nothing(served: Mosquitto, columns: int) -> None:
    shown = pexpect.run(
        f"{PROGRAM} status --once --broker {served.url} --worker many",
        encoding="utf-8",
        env={**environment(TERM="xterm")},
        dimensions=(60, columns),
        timeout=60,
    )
    lines = [line.rstrip() for line in re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", str(shown)).splitlines()]
    assert max(map(len, lines)) <= columns
    words = " ".join(lines).split()
    assert [figure for figure in (*FIGURES, "gpu1", "gpu2", "unavailable", "qwen") if figure not in words] == []


def test_json_has_them_as_the_worker_says_them(served: Mosquitto) -> None:
    fields = json.loads(status(served, "--json").stdout)
    assert fields["many"]["presence"]["models"] == {"phi": "ready", "qwen": "stopped"}
    slot = fields["many"]["stats"]["models"]["phi"]["slots"]["gpu1"]
    assert (slot["memoryMeasured"], slot["errors"]["503"], slot["latencyMs"]["p99"]) == (3 * 1024**3, 52, 303)
