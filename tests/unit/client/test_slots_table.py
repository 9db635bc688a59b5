"""`inferbus status`: every model and slot of a worker that has several."""

from __future__ import annotations

import io
import json
from typing import Any, Final

import pytest
from rich.console import Console

from inferbus_client.cli.overview import Overview
from inferbus_client.contract.presence import Latency, ModelStats, Presence, SlotStats, Stats, decode_announcement
from inferbus_client.fleet.watch import WorkerView

OLLAMA: Final = SlotStats(
    backend="ollama",
    state="ready",
    active=3,
    limit=8,
    memory_declared=6 * 1024**3,
    memory_measured=int(5.25 * 1024**3),
    requests=1234,
    errors={"429": 21, "503": 32, "cut": 1, "timeout": 6},
    retries=9,
    wait_ms=15,
    latency_ms=Latency(p50=420, p95=2100, p99=12_000),
    first_token_ms=88,
    breaker="half-open",
)
MODELS: Final = {
    "phi": ModelStats(queued=17, state="ready", slots={"ollama": OLLAMA, "gpu2": SlotStats(state="unavailable")}),
    "qwen": ModelStats(queued=0, state="stopped"),
}
FIGURES: Final = (
    "3/8",
    "5.2GiB",
    "6GiB",
    "1234",
    "21",
    "32",
    "7",
    "15ms",
    "420ms",
    "2.1s",
    "12.0s",
    "88ms",
    "half-open",
)


def rendered(*workers: WorkerView, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(Overview({view.presence.worker: view for view in workers if view.presence}))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def view(worker: str = "w", models: Any = MODELS, state: Any = "ready", **presence: Any) -> WorkerView:
    return WorkerView(
        Presence(worker=worker, state=state, model="a-model", **presence), (Stats(worker=worker, models=models),)
    )


@pytest.mark.parametrize("width", [40, 79, 80, 110, 200])
def test_every_width_shows_every_figure_of_every_slot(width: int) -> None:
    lines = rendered(view(), width=width).splitlines()
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    for figure in (*FIGURES, "phi", "ollama", "gpu2", "unavailable", "qwen", "stopped", "17"):
        assert figure in words, figure
    assert "…" not in "".join(lines)


def test_a_pipe_gets_a_line_for_each_slot() -> None:
    lines = rendered(view(), width=10_000).splitlines()
    (row,) = [line for line in lines if "ollama" in line]
    assert [figure for figure in FIGURES if figure not in row.split()] == []
    assert [line.split()[:2] for line in lines if "gpu2" in line] == [["phi", "gpu2"]]


@pytest.mark.parametrize("width", [40, 50, 60])
def test_what_is_folded_is_indented_so_that_each_slot_begins_where_a_line_does(width: int) -> None:
    """A state stood at the beginning of a line, where the next slot's model was looked for."""
    name = "organisation/model-of-some-size"
    known = view(models={name: ModelStats(slots={f"{name}/llama.cpp-1": SlotStats(state="down", backend="llama.cpp")})})
    lines = rendered(known, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert {line.split()[0].rstrip(":") for line in lines if line[:1].strip()} == {"w", name, "down", "The"}


@pytest.mark.parametrize("width", [60, 200])
def test_a_worker_of_one_model_and_one_slot_has_the_page_that_it_had(width: int) -> None:
    one = {"a-model": ModelStats(state="ready", slots={"vllm": SlotStats(state="ready", active=3, limit=8)})}
    assert rendered(view(models=one), width=width) == rendered(view(models={}), width=width)


def test_but_one_that_is_left_alone_is_shown() -> None:
    one = {"a-model": ModelStats(slots={"ollama": SlotStats(breaker="open")})}
    assert "open" in rendered(view(models=one)).split()


@pytest.mark.parametrize("state", ["down", "dead", "open", "unavailable", "something newer"])
def test_and_so_is_one_in_any_state_that_is_not_fine_with_what_that_means(state: str) -> None:
    one = {"a-model": ModelStats(slots={"ollama": SlotStats(state=state)})}
    shown = " ".join(rendered(view(models=one)).split())
    assert f"ollama {state}" in shown
    assert ("The worker's log says why" in shown) == (state != "something newer")


def test_a_model_that_cannot_answer_is_shown_before_its_figures_come() -> None:
    told = Presence(worker="w", state="loading", models={"phi": "unavailable"})
    assert "unavailable" in rendered(WorkerView(told)).split()


def test_models_are_shown_before_their_figures_come() -> None:
    told = Presence(worker="w", state="ready", models={"phi": "starting", "qwen": "ready"})
    words = rendered(WorkerView(told)).split()
    assert {"phi", "starting", "qwen"} <= set(words)


def test_those_of_a_worker_that_is_gone_are_not() -> None:
    assert "ollama" not in rendered(view(state="offline"))


def test_with_several_workers_each_has_its_own() -> None:
    shown = rendered(view("one"), view("two"), width=200).splitlines()
    assert [line for line in shown if line.strip() in {"one", "two"}] == ["one", "two"]


def test_nothing_of_it_is_obeyed_by_the_terminal() -> None:
    evil = "\x1b[2J\x9b2Jevil\nforged\u202e"
    slot = SlotStats(backend=evil, state=evil, breaker=evil)
    known = view(models={evil: ModelStats(state=evil, slots={evil: slot, "b": slot})})
    for width in (40, 400):
        shown = rendered(known, width=width)
        assert shown.count("evil") >= 4
        assert not {"\x1b", "\x9b", "\u202e"} & set(shown)
        assert not [line for line in shown.splitlines() if line.startswith("forged")]


@pytest.mark.parametrize(
    "models",
    [
        {f"m{model}": {"slots": {f"s{slot}": {} for slot in range(100)}} for model in range(100)},
        {"m": {"queued": 2**63 - 1, "slots": {"s": {"active": -(2**63), "limit": 2**63 - 1}, "t": {}}}},
        {"m": {"slots": {"s": {"memoryDeclared": 2**63 - 1, "memoryMeasured": -(2**63)}, "t": {}}}},
        {"m": {"slots": {"s": {"errors": {"a": 2**63 - 1, "b": 2**63 - 1}}, "t": {"waitMs": -1.7e308}}}},
    ],
    ids=["many", "counts", "bytes", "errors"],
)
def test_no_number_that_anyone_sends_is_too_much(models: dict[str, Any]) -> None:
    stats = decode_announcement(Stats, json.dumps({"worker": "w", "models": models}).encode())
    assert stats is not None
    known = WorkerView(Presence(worker="w", state="ready"), (stats,))
    assert len(rendered(known).splitlines()) < 1000
