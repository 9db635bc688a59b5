"""`inferbus stress` ends when it was told to, and measures what was asked for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

from inferbus_client import __version__
from support.fake_worker import Act, FakeWorker, Wait, accepted, delta, done
from support.inferbus import inferbus
from support.mosquitto import Mosquitto
from support.waiting import PATIENCE


@pytest.fixture
def way(broker: Mosquitto, fake_worker: FakeWorker) -> tuple[str, ...]:
    return ("--broker", broker.url, "--project", fake_worker.project, "--num-warmups", "0", "--settle", "0s")


def no_json(word: str) -> NoReturn:
    raise AssertionError(f"{word} is no JSON")


def level(text: str) -> dict[str, Any]:
    (found,) = json.loads(text, parse_constant=no_json)["levels"]
    assert isinstance(found, dict)
    return found


def slow(_request: Mapping[str, Any]) -> Iterator[Act]:
    yield Wait(0.3)
    yield done("slow")


def steady(_request: Mapping[str, Any]) -> Iterable[Act]:
    """Five tokens in five deltas, 20 ms apart."""
    yield accepted()
    for word in "abcde":
        yield Wait(0.02)
        yield delta(f"{word} ")
    yield done("a b c d e ")


class TestTheEnd:
    def test_comes_for_an_infinite_rate_too(self, way: tuple[str, ...], fake_worker: FakeWorker) -> None:
        load = ("--request-rate", "inf", "--max-concurrency", "20", "--duration", "3s")
        began = time.monotonic()
        run = inferbus("stress", *way, *load, "--json")
        assert run.returncode == 0, run.stderr
        assert time.monotonic() - began < PATIENCE
        figures = level(run.stdout)
        assert figures["requestRate"] == "inf"
        assert figures["answered"] == figures["sent"] == len(fake_worker.heard) > 20
        assert figures["total"]["max"] < 15  # from when a request could be sent, not from when the run began

    def test_of_an_infinite_rate_has_a_table_that_says_how_fast_that_was(self, way: tuple[str, ...]) -> None:
        run = inferbus("stress", *way, "--request-rate", "inf", "--max-concurrency", "5", "--duration", "500ms")
        assert "open loop, as fast as they go, at most 5 at once" in run.stdout
        assert "nan" not in run.stdout
        assert all(len(line) <= 80 for line in run.stdout.splitlines())

    def test_is_not_put_off_by_what_waits_for_a_slot(self, way: tuple[str, ...], fake_worker: FakeWorker) -> None:
        """50 are due, one at a time takes 0.3 s: what has no slot by the end is not sent at all."""
        fake_worker.script = slow
        load = ("--request-rate", "50", "--max-concurrency", "1", "--duration", "1s", "--json")
        figures = level(inferbus("stress", *way, *load).stdout)
        assert figures["sent"] == len(fake_worker.heard) <= 4
        assert figures["wall"] < 10  # 15 if all were sent

    def test_comes_for_a_closed_loop(self, way: tuple[str, ...], fake_worker: FakeWorker) -> None:
        fake_worker.script = slow
        figures = level(inferbus("stress", *way, "--clients", "2", "--duration", "1s", "--json").stdout)
        assert figures["answered"] == figures["sent"] <= 8
        assert figures["wall"] < 10


class TestFigures:
    def test_are_those_of_vllm_bench_serve(self, way: tuple[str, ...], fake_worker: FakeWorker) -> None:
        fake_worker.script = steady
        few = ("--clients", "2", "--messages", "2", "--goodput", "ttft:10000", "--goodput", "e2el:20s")
        run = inferbus("stress", *way, *few, "--json")
        figures = level(run.stdout)
        assert figures["answered"] == 4
        assert 0.01 < figures["interToken"]["p50"] < 2
        assert 0.01 < figures["perOutputToken"]["p50"] < 2
        assert figures["firstToken"]["p50"] < figures["total"]["p50"]
        assert (figures["inputTokens"], figures["outputTokens"]) == (12, 20)
        assert figures["inputLengths"]["mean"] == 3
        assert figures["outputLengths"] | {"std": 0} == figures["outputLengths"]
        assert figures["goodput"] == pytest.approx(figures["throughput"])
        about = json.loads(run.stdout)["run"]
        assert about["versions"]["inferbus-client"] == __version__
        assert about["seed"] is None
        assert {"python", "paho-mqtt"} < set(about["versions"])
        assert about["goodput"] == {"ttft": 10.0, "e2el": 20.0}

    def test_goodput_counts_those_that_met_every_objective(self, way: tuple[str, ...], fake_worker: FakeWorker) -> None:
        slow_ones = iter([True, False, True, False])
        fake_worker.script = lambda _: [Wait(2), done("slow")] if next(slow_ones) else [done("quick")]
        few = ("--clients", "1", "--messages", "4", "--goodput", "e2el:1900")
        figures = level(inferbus("stress", *way, *few, "--json").stdout)
        assert figures["goodput"] * figures["wall"] == pytest.approx(2)

    def test_stand_in_the_table(self, way: tuple[str, ...], fake_worker: FakeWorker) -> None:
        fake_worker.script = steady
        load = ("--request-rate", "20", "--duration", "1s", "--seed", "7", "--goodput", "tpot:5000")
        shown = inferbus("stress", *way, *load).stdout
        for words in (
            *("first token", "inter-token", "per output token", "total", "input length", "output length"),
            *("requests/s in time (tpot 5 s)", "seed 7", f"inferbus-client {__version__}"),
        ):
            assert words in shown, words
        assert all(len(line) <= 80 for line in shown.splitlines())

    def test_stand_in_the_plot(self, way: tuple[str, ...], tmp_path: Path) -> None:
        file = tmp_path / "plot.svg"
        few = ("--messages", "1", "--sweep", "1,2", "--max-p95", "30s", "--plot", str(file))
        run = inferbus("stress", *way, *few)
        assert run.returncode == 0, run.stderr
        assert file.read_text().startswith("<?xml")


def test_the_help_shows_its_own_defaults() -> None:
    shown = " ".join(inferbus("stress", "--help").stdout.split())
    for words in (
        *("How long to wait for a whole answer", "How often to try again", "at most so many in flight"),
        *("Let the load grow over this time", "listen for what comes late or twice"),
    ):
        assert words in shown
    assert "How long to wait for a whole answer; the worker is told, and gives up then too. [default: 1m]" in shown
    assert "How often to try again what may succeed later. [default: 0]" in shown
    assert "2m" not in shown
    assert "500ms]" in shown.split("comes late or twice")[1][:40]
    assert "[default: 1000" in shown.split("at most so many in flight")[1][:40]
