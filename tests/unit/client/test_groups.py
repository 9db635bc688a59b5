"""Groups of workers as `inferbus status`, the page, the doctor and the metrics tell of them."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from inferbus_client.cli.overview import Overview
from inferbus_client.contract.presence import GroupStats, Presence, Stats
from inferbus_client.fleet.figures import figures_of, together
from inferbus_client.fleet.groups import MOST_GROUPS, groups_of
from inferbus_client.fleet.live import Live, Look
from inferbus_client.fleet.troubles import troubles_of
from inferbus_client.fleet.watch import WorkerView
from inferbus_client.gateway.metrics import Metrics


def worker(name: str, state: Any = "ready", group: str | None = "inferbus", **told: Any) -> WorkerView:
    models = told.pop("models", {})
    presence = Presence(worker=name, state=state, model="phi", models=models, projects=("general",), group=group)
    if group is None:
        return WorkerView(presence)
    figures = GroupStats(name=group, **{"workers": 3, "leases": 7, "queued": 12, "sessions": 40, **told})
    return WorkerView(presence, (Stats(worker=name, group=figures, queue_size=1000),), 1.0)


THREE = {
    "gpu-1": worker("gpu-1", models={"phi": "ready", "qwen": "unavailable"}),
    "gpu-2": worker("gpu-2", reached=False, reason="timed out", queued=99),
    "gpu-3": worker("gpu-3", "loading"),
    "alone": worker("alone", group=None),
    "gone": worker("gone", "offline"),
}


def rendered(workers: dict[str, WorkerView], width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(Overview(workers))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_group_is_who_is_there_and_who_serves_what() -> None:
    (group,) = groups_of(THREE)
    assert group.workers == {"gpu-1": "ready", "gpu-2": "ready", "gpu-3": "loading"}
    assert group.models == {"phi": ("gpu-1", "gpu-2")}
    assert group.unreached == {"gpu-2": "timed out"}
    assert group.summary == "3 workers, 12 of 1000 waiting, 7 taken, 40 conversations"


def test_who_died_without_a_word_is_in_the_store_for_a_while() -> None:
    (group,) = groups_of({"gpu-1": worker("gpu-1")})
    assert group.summary.startswith("1 worker here, 3 by the store, 12 of 1000 waiting")


def test_who_has_told_no_figures_is_counted() -> None:
    (group,) = groups_of({"w": WorkerView(Presence(worker="w", state="ready", group="g"))})
    assert (group.summary, list(group.lines())) == ("1 worker", ["workers: w"])


@pytest.mark.parametrize("width", [40, 80, 120])
def test_status_tells_of_it_at_every_width(width: int) -> None:
    lines = rendered(THREE, width).splitlines()
    assert max(map(len, lines)) <= width
    shown = " ".join(" ".join(lines).split())
    for words in (
        "group inferbus: 3 workers, 12 of 1000 waiting, 7 taken, 40 conversations",
        "workers: gpu-1, gpu-2, gpu-3 (loading)",
        "phi: gpu-1, gpu-2",
        "gpu-2 does not reach the store: timed out",
    ):
        assert words in shown


def test_a_group_s_queue_and_its_bound_stand_there_once() -> None:
    two = {name: worker(name) for name in ("one", "two")}
    lines = [" ".join(line.split()) for line in rendered(two, 120).splitlines()]
    assert not any("/1000" in line for line in lines if line.startswith(("one", "two"))), lines
    (total,) = (line for line in lines if line.startswith("all 2"))
    assert "12/1000" in total


def test_what_waits_is_added_up_over_groups_and_those_who_share_with_nobody() -> None:
    own = WorkerView(Presence(worker="own", state="ready"), (Stats(worker="own", queued=3, queue_size=10),), 1.0)
    workers = {**THREE, "own": own, "other": worker("other", group="more", queued=5)}
    total = together([figures for view in workers.values() if (figures := figures_of(view)) is not None])
    assert (total.queued, total.queue_size) == (12 + 3 + 5, 1000 + 10 + 1000)


def test_where_nobody_shares_nothing_is_said_of_groups() -> None:
    assert "group" not in rendered({"alone": worker("alone", group=None)}, 80)


def test_the_page_is_told_whose_a_worker_is_and_what_they_share() -> None:
    seen = Live().tick(Look(THREE, is_up=True, at=0.0, now=1.0))
    json.dumps(seen, allow_nan=False)
    assert {one["name"]: one["group"] for one in seen["workers"]} == {
        **dict.fromkeys(("gpu-1", "gpu-2", "gpu-3"), "inferbus"),
        **dict.fromkeys(("alone", "gone"), ""),
    }
    (group,) = seen["groups"]
    assert (group["name"], group["lines"][1]) == ("inferbus", "phi: gpu-1, gpu-2")


def test_who_does_not_reach_the_store_is_a_fault() -> None:
    (trouble,) = troubles_of("gpu-2", THREE["gpu-2"])
    assert trouble.level == "fault"
    assert trouble.words == "gpu-2 does not reach the store of group inferbus: timed out."


def test_the_gateway_counts_who_serves_each_model() -> None:
    pytest.importorskip("prometheus_client")
    text, _ = Metrics(lambda: 0, lambda: True, dict, lambda: groups_of(THREE)).exposition()
    assert b'inferbus_gateway_group_workers{group="inferbus",model="phi"} 2.0' in text


def test_what_strangers_announce_is_bounded_and_text() -> None:
    evil = "\x1b[2Jevil\nforged"
    many = {f"w{n}": worker(f"w{n}", group=f"{evil}{n}", reached=False, reason=evil) for n in range(300)}
    many |= {f"v{n}": worker(f"v{n}", models={f"{n}-{m}": "ready" for m in range(100)}) for n in range(30)}
    assert len(groups_of(many)) == MOST_GROUPS
    shown = rendered(many, 80)
    assert "\x1b" not in shown
    assert not [line for line in shown.splitlines() if line.startswith("forged")]
    assert "and 10 more" in " ".join(shown.split())


def test_no_figure_is_too_large() -> None:
    huge: dict[str, Any] = {"workers": 2**63 - 1, "leases": -(2**63), "queued": 2**63 - 1, "sessions": 2**63 - 1}
    assert len(rendered({"w": worker("w", **huge)}, 40)) < 2000
