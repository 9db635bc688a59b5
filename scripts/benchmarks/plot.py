"""The plots beside the document: every ratio with its goal, the resident size over a million requests, and curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from .figures import Curve, Ratio, Scaling, Section

_WIDTH: Final = 10.0
_PER_ROW: Final = 0.3
_CURVE_HEIGHT: Final = 2.6
_MET: Final = "#2a7f62"
_MISSED: Final = "#b8402a"
_PANELS: Final = (("requests/s",), ("p50 (ms)", "p99 (ms)"), ("CPU per request (µs)",))


def draw(document: Path, sections: list[Section]) -> dict[str, str]:
    """Write SVGs beside the document, where there is something to draw; what they show, by their names."""
    mpl.rcParams["svg.hashsalt"] = "inferbus"  # the same figures give the same file
    shown = {}
    for kind, (figure, what) in {
        "": (_goals(sections), "Ratios with their goals, and the resident size over the requests"),
        "-curves": (_scalings(sections), "Requests/s, round trips and CPU time over what grows"),
    }.items():
        if figure is not None:
            path = document.with_name(f"{document.stem}{kind}.svg")
            figure.savefig(path, format="svg", metadata={"Date": None})
            shown[path.name] = what
    return shown


def _goals(sections: list[Section]) -> Figure | None:
    ratios = [ratio for section in sections for ratio in section.ratios]
    curve = next((section.curve for section in sections if section.curve is not None), None)
    heights = [_PER_ROW * len(ratios) + 0.8] * bool(ratios) + [_CURVE_HEIGHT] * (curve is not None)
    if not heights:
        return None
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    axes = list(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
    if ratios:
        _ratios(axes[0], ratios)
    if curve is not None:
        _curve(axes[-1], curve)
    return figure


def _scalings(sections: list[Section]) -> Figure | None:
    """A row for each thing that grows: requests/s, latencies, CPU time."""
    scalings = [section.scaling for section in sections if section.scaling is not None]
    if not scalings:
        return None
    figure = Figure(figsize=(_WIDTH, _CURVE_HEIGHT * len(scalings)), layout="constrained")
    panels = figure.subplots(len(scalings), len(_PANELS), squeeze=False)
    for row, scaling in zip(panels, scalings, strict=True):
        for axes, names in zip(row, _PANELS, strict=True):
            _panel(axes, scaling, names)
    return figure


def _panel(axes: Any, scaling: Scaling, names: Sequence[str]) -> None:
    for name, color in zip(names, (_MET, _MISSED), strict=False):
        spreads = scaling.figures[name]
        axes.plot(scaling.points, [spread.median for spread in spreads], "o-", color=color, markersize=3, label=name)
        low, high = [spread.low for spread in spreads], [spread.high for spread in spreads]
        axes.fill_between(scaling.points, low, high, color=color, alpha=0.2)
    if 0 not in scaling.points:
        axes.set_xscale("log")
    axes.set_xticks(scaling.points, [f"{point:,}" for point in scaling.points], fontsize=7)
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel(scaling.over, fontsize=8)
    axes.legend(fontsize=7)
    axes.grid(visible=True, alpha=0.3)


def _ratios(axes: Any, ratios: list[Ratio]) -> None:
    for place, ratio in enumerate(reversed(ratios)):
        spread = ratio.spread
        color = _MET if ratio.verdict("").met else _MISSED
        axes.plot([spread.low, spread.high], [place, place], color=color, linewidth=2, alpha=0.5)
        axes.plot(spread.median, place, "o", color=color)
        axes.plot(ratio.goal, place, "<" if ratio.at_most else ">", color="black", markersize=6, fillstyle="none")
    axes.set_yticks(range(len(ratios)), [ratio.label for ratio in reversed(ratios)], fontsize=8)
    axes.axvline(1.0, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("median and range of the rounds; triangles: goals")
    axes.grid(visible=True, axis="x", alpha=0.3)


def _curve(axes: Any, curve: Curve) -> None:
    axes.plot(curve.requests, curve.megabytes, color=_MET)
    axes.set_ylim(0, max(curve.megabytes) * 1.2)
    axes.set_xlabel("requests, each with a session id of its own")
    axes.set_ylabel("resident size (MB)")
    axes.grid(visible=True, alpha=0.3)
