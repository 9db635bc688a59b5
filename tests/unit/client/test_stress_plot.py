"""`--plot`: what it draws; without matplotlib a sentence, before the run."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from inferbus_client.cli.stress import plot
from inferbus_client.cli.stress.goodput import Goodput
from inferbus_client.cli.stress.ledger import Ledger
from inferbus_client.cli.stress.objectives import Objectives
from inferbus_client.cli.stress.plan import Plan
from inferbus_client.cli.stress.result import Result
from inferbus_client.errors import SettingsError
from inferbus_client.exchange.answer import Answer
from support.needs import needs_module

OBJECTIVES = Objectives(max_p95=2.0, max_p99=3.0, max_first_token=1.0, min_throughput=5.0)


def result_of(plan: Plan, *, answers: int) -> Result:
    ledger = Ledger()
    for number in range(answers):
        ledger.sent(str(number), scheduled=0.0)
        ledger.answered(str(number), Answer("x", "s", str(number), total_s=0.5), streamed=True)
    return Result.of(plan, ledger, wall=2.0)


@pytest.fixture
def figures() -> Iterator[list[Any]]:
    """What a test draws is closed when it ends."""
    needs_module("matplotlib")
    import_module("matplotlib").use("Agg")
    drawn: list[Any] = []
    yield drawn
    for figure in drawn:
        import_module("matplotlib.pyplot").close(figure)


def labels(axis: Any) -> set[str]:
    return {line.get_label() for line in axis.get_lines()}


def test_every_panel_has_a_title_and_its_objectives(figures: list[Any]) -> None:
    plans = [Plan(clients=clients, goodput=Goodput(e2el=1.0)) for clients in (1, 5)]
    figure = plot.draw([result_of(plan, answers=4) for plan in plans], OBJECTIVES)
    figures.append(figure)
    latencies, throughput, per_request = figure.axes
    assert figure.get_suptitle() == "inferbus stress: a sweep over 2 numbers of clients"
    assert [axis.get_title() for axis in figure.axes] == [
        "Time to the whole answer",
        "Throughput",
        "Time per request: falls while the engine batches",
    ]
    assert {"p95", "objective for p95", "objective for p99", "objective for first token, p95"} < labels(latencies)
    assert labels(throughput) == {"answers", "in time (e2el 1 s)", "objective"}
    assert labels(per_request) == {"time per request"}
    assert list(throughput.get_lines()[0].get_ydata()) == [2.0, 2.0]


def test_a_level_without_an_answer_leaves_a_hole(figures: list[Any]) -> None:
    figure = plot.draw([result_of(Plan(request_rate=float("inf")), answers=0)], Objectives())
    figures.append(figure)
    assert len(figure.axes) == 2
    assert "as fast as they go" in figure.get_suptitle()
    assert labels(figure.axes[1]) == {"answers"}


def test_a_missing_matplotlib_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=r"in a checkout, pip install '\./client\[plot\]'"):
        plot.require_matplotlib()
