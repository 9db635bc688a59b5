"""`inferbus status`: what workers say of themselves, in 80 columns."""

from __future__ import annotations

import io
import json
from typing import Final

import pytest
from rich.console import Console

from inferbus_client.cli.overview import Overview, format_age
from inferbus_client.contract.presence import Latency, Level, Presence, State, Stats, decode_announcement
from inferbus_client.fleet.watch import WorkerView


def rendered(workers: dict[str, WorkerView], *, stale: bool = False, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(Overview(workers, stale=stale))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def view(state: State, stats: Stats | None = None) -> WorkerView:
    readings = () if stats is None else (stats,)
    return WorkerView(Presence(worker="w", state=state, model="a-model", projects=("general",)), readings)


BUSY = Stats(
    worker="w",
    active=8,
    capacity=16,
    queued=120,
    queue_size=1000,
    errors=2,
    rejected={"overloaded": 3},
    requests_per_s=12.34,
    tokens_per_s=1234.5,
    latency_ms=Latency(p50=420, p95=12_000, p99=34_000),
)


def test_a_busy_worker_in_figures() -> None:
    shown = rendered({"w": view("ready", BUSY)})
    for figure in ("ready", "a-model", "8/16", "120/1000", "12.3", "1234", "420ms", "12.0s", "34.0s", "5"):
        assert figure in shown, figure
    assert max(map(len, shown.splitlines())) <= 80


def test_old_figures_of_a_worker_that_is_gone_are_not_shown() -> None:
    shown = rendered({"w": view("offline", BUSY)})
    assert "offline" in shown
    assert "120/1000" not in shown


FILLING = Stats(
    worker="w",
    levels={
        "queue": Level(now=500, bound=1000),
        "historyBytes": Level(now=71, bound=100),
        "retryMemoryBytes": Level(now=0, bound=0),
        "rateLimitSessions": Level(now=100_000, bound=100_000),
    },
    replies_dropped=3,
)


def test_what_is_more_than_half_full_is_said_below() -> None:
    shown = " ".join(rendered({"w": view("ready", FILLING), "idle": view("ready", BUSY)}).split())
    assert "w: historyBytes 71% full, rateLimitSessions 100% full, 3 replies dropped" in shown
    for absent in ("queue 50%", "retryMemory", "idle:"):
        assert absent not in shown


def test_what_was_more_than_half_full_of_a_worker_that_is_gone_is_not_said() -> None:
    assert "full" not in rendered({"w": view("offline", FILLING)})


def test_an_empty_bus_and_a_lost_broker_are_said_in_words() -> None:
    assert "No worker" in rendered({})
    assert "this is old" in rendered({"w": view("ready")}, stale=True)


@pytest.mark.parametrize("width", [20, 40, 79, 80, 109, 110, 200])
def test_every_width_shows_every_figure(width: int) -> None:
    name = "a-worker-with-a-name-of-its-own"
    lines = rendered({name: view("ready", BUSY), "w": view("ready", BUSY)}, width=width).splitlines()
    assert max(map(len, lines)) <= width
    shown = " ".join(" ".join(lines).split())
    for figure in ("8/16", "120/1000", "12.3", "1234", "420ms", "12.0s", "34.0s", "16/32", "240/2000", "24.7", "2469"):
        assert figure in shown, figure
    assert name in shown.replace(" ", "") or width >= 110


def test_one_worker_is_not_added_up() -> None:
    assert "all" not in rendered({"w": view("ready", BUSY), "gone": view("offline", BUSY)})


def test_nothing_that_a_worker_says_is_obeyed_by_the_terminal() -> None:
    evil = "\x1b[2J\x9b2Jevil\nforged\u202e"
    levels = {evil: Level(now=9, bound=10)}
    known = WorkerView(Presence(worker=evil, state="ready", model=evil), (Stats(worker=evil, levels=levels),))
    for width in (40, 400):
        shown = rendered({evil: known}, width=width)
        assert shown.count("evil") == 4
        assert not {"\x1b", "\x9b", "\u202e"} & set(shown)
        assert not [line for line in shown.splitlines() if line.startswith("forged")]


_HUGE: Final = int("9" * 4000)


@pytest.mark.parametrize(
    "said",
    [
        {"histograms": {"totalMs": {"buckets": {"1": _HUGE}}}},
        {"histograms": {"totalMs": {"sumMs": 1.7e308, "buckets": {"1": 2**63 - 1, "more": 2**63 - 1}}}},
        {"histograms": {"totalMs": {}}, "processed": _HUGE},
        {"histograms": {"totalMs": {}}, "completionTokens": 2**63 - 1, "processed": -(2**63)},
        {"errors": _HUGE, "rejected": {"overloaded": _HUGE}},
        {"levels": {"queue": {"now": _HUGE, "bound": 1}}},
        {"levels": {f"level {number}": {"now": 1, "bound": 1} for number in range(10_000)}},
        {"requestsPerS": 1.7e308, "latencyMs": {"p50": -1.7e308}},
        {"active": _HUGE, "capacity": 2**63 - 1},
    ],
    ids=lambda said: next(iter(said)),
)
def test_no_number_that_anyone_sends_is_too_much_for_the_table(said: dict[str, object]) -> None:
    stats = decode_announcement(Stats, json.dumps({"worker": "w", **said}).encode())
    known = WorkerView(Presence(worker="w", state="ready"), () if stats is None else (stats,))
    assert len(rendered({"w": known, "v": known})) < 10_000


def test_an_announcement_has_a_bound() -> None:
    small, large = (json.dumps({"worker": "w", "more": "x" * size}).encode() for size in (100_000, 1_000_000))
    assert decode_announcement(Stats, small) is not None
    assert decode_announcement(Stats, large) is None


@pytest.mark.parametrize(("seconds", "text"), [(-3, "0s"), (59, "59s"), (61, "1m"), (7300, "2h"), (200_000, "2d")])
def test_ages(seconds: float, text: str) -> None:
    assert format_age(seconds) == text
