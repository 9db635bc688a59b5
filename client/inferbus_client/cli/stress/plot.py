"""Draws a run. matplotlib is an extra, and imported when a plot is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from inferbus_client.cli.stress.objectives import Objectives
from inferbus_client.cli.stress.result import SHARES, Result
from inferbus_client.errors import SettingsError

ENDINGS: Final = (".png", ".svg", ".pdf")


def require_matplotlib() -> None:
    """Say before a long run, not after it, that the plot cannot be drawn.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise SettingsError("--plot needs matplotlib: in a checkout, pip install './client[plot]'")


def plot(results: Sequence[Result], objectives: Objectives, file: Path) -> None:
    """Draw the run into a file.

    Raises:
        SettingsError: the file cannot be written.
    """
    import_module("matplotlib").use("Agg")
    figure = draw(results, objectives)
    try:
        figure.savefig(file, dpi=120)
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot write the plot {file}: {error}") from None
    finally:
        import_module("matplotlib.pyplot").close(figure)


def draw(results: Sequence[Result], objectives: Objectives) -> Any:
    """A figure: latencies and throughput of every level and, for a sweep, the time per request; objectives as lines."""
    panels = [_latencies, _throughput, *([_time_per_request] if len(results) > 1 else [])]
    pyplot = import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5 * len(panels), 4.5), squeeze=False)
    one = results[0].plan.describe() if len(results) == 1 else f"a sweep over {len(results)} numbers of clients"
    figure.suptitle(f"inferbus stress: {one}")
    for panel, axis in zip(panels, axes[0], strict=True):
        panel(axis, results, objectives)
        axis.set_xticks(list(range(len(results))), [_label(result) for result in results])
        axis.set_xlabel("requests per second asked for" if results[0].plan.is_open else "clients at once")
        axis.set_ylim(bottom=0)
        axis.legend()
    figure.tight_layout()
    return figure


def _latencies(axis: Any, results: Sequence[Result], objectives: Objectives) -> None:
    axis.set_title("Time to the whole answer")
    axis.set_ylabel("seconds")
    for name in SHARES:
        _line(axis, name, [getattr(result.total, name) for result in results])
    _line(axis, "first token, p95", [result.first_token.p95 for result in results], linestyle="--")
    limits = {"p95": objectives.max_p95, "p99": objectives.max_p99, "first token, p95": objectives.max_first_token}
    for name, limit in limits.items():
        _objective(axis, f"objective for {name}", limit)


def _throughput(axis: Any, results: Sequence[Result], objectives: Objectives) -> None:
    axis.set_title("Throughput")
    axis.set_ylabel("answers per second")
    _line(axis, "answers", [result.throughput for result in results])
    if results[0].goodput is not None:
        good = [result.goodput for result in results]
        _line(axis, f"in time ({results[0].plan.goodput})", good, linestyle="--")
    _objective(axis, "objective", objectives.min_throughput)


def _time_per_request(axis: Any, results: Sequence[Result], _objectives: Objectives) -> None:
    axis.set_title("Time per request: falls while the engine batches")
    axis.set_ylabel("seconds of the run for each answer")
    _line(axis, "time per request", [result.time_per_request for result in results])


def _line(axis: Any, label: str, measured: Sequence[float | None], **style: str) -> None:
    """One value of every level, with a hole where nothing was measured."""
    values = [float("nan") if value is None else value for value in measured]
    axis.plot(range(len(values)), values, marker="o", label=label, **style)


def _objective(axis: Any, label: str, limit: float | None) -> None:
    if limit is not None:
        axis.axhline(limit, color="black", linestyle=":", label=label)


def _label(result: Result) -> str:
    plan = result.plan
    return f"{plan.request_rate:g}" if plan.is_open else str(plan.clients)
