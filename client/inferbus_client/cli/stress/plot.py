"""Draws a run. matplotlib is an extra, and imported when a plot is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from inferbus_client.cli.stress.result import SHARES, Result
from inferbus_client.settings import SettingsError


def require_matplotlib() -> None:
    """Say before a long run, not after it, that the plot cannot be drawn.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise SettingsError("--plot needs matplotlib: pip install 'inferbus-client[plot]'")


def plot(results: Sequence[Result], file: Path) -> None:
    """Latencies of every level and, for a sweep, the time per request against concurrency.

    Raises:
        SettingsError: the file cannot be written.
    """
    import_module("matplotlib").use("Agg")
    pyplot = import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(1, 2 if len(results) > 1 else 1, figsize=(10, 4.5), squeeze=False)
    _latencies(axes[0][0], results)
    if len(results) > 1:
        _time_per_request(axes[0][1], results)
    figure.tight_layout()
    try:
        figure.savefig(file, dpi=120)
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot write the plot {file}: {error}") from None
    finally:
        pyplot.close(figure)


def _latencies(axis: Any, results: Sequence[Result]) -> None:
    places = range(len(results))
    for name in SHARES:
        values = [getattr(result.total, name) or float("nan") for result in results]
        axis.plot(places, values, marker="o", label=name)
    axis.set_xticks(list(places), [_label(result) for result in results])
    axis.set_xlabel("requests per second" if results[0].plan.is_open else "clients at once")
    axis.set_ylabel("seconds to the whole answer")
    axis.set_ylim(bottom=0)
    axis.legend()


def _time_per_request(axis: Any, results: Sequence[Result]) -> None:
    levels = [result.plan.clients for result in results]
    axis.plot(levels, [(result.time_per_request or float("nan")) * 1000 for result in results], marker="o")
    axis.set_xscale("log")
    axis.set_xticks(levels, [str(level) for level in levels])
    axis.set_xlabel("clients at once")
    axis.set_ylabel("milliseconds per request")
    axis.set_ylim(bottom=0)


def _label(result: Result) -> str:
    plan = result.plan
    return f"{plan.request_rate:g}" if plan.is_open else str(plan.clients)
