"""The plot beside the document: every ratio with its goal, and the resident size over a million requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from .figures import Curve, Ratio, Section

_WIDTH: Final = 10.0
_PER_ROW: Final = 0.3
_CURVE_HEIGHT: Final = 2.6
_MET: Final = "#2a7f62"
_MISSED: Final = "#b8402a"


def draw(path: Path, sections: list[Section]) -> bool:
    """Write an SVG; False where there is nothing to draw."""
    ratios = [ratio for section in sections for ratio in section.ratios]
    curve = next((section.curve for section in sections if section.curve is not None), None)
    heights = [_PER_ROW * len(ratios) + 0.8] * bool(ratios) + [_CURVE_HEIGHT] * (curve is not None)
    if not heights:
        return False
    mpl.rcParams["svg.hashsalt"] = "inferbus"  # the same figures give the same file
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    axes = list(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
    if ratios:
        _ratios(axes[0], ratios)
    if curve is not None:
        _curve(axes[-1], curve)
    figure.savefig(path, format="svg", metadata={"Date": None})
    return True


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
