"""Every worker at a glance: a table where it fits, a few lines for each where it does not."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from inferbus_client.fleet.figures import Figures, figures_of, together
from inferbus_client.fleet.watch import WorkerView
from inferbus_client.shown import shown_in_line
from inferbus_client.units import format_duration

_STYLES: Final = {"ready": "green", "loading": "yellow", "draining": "yellow", "offline": "red"}
_WORTH_A_GLANCE: Final = 0.5
#: From so many columns on the table folds long names; with fewer there would be more of their lines than of figures.
_ROOMY: Final = 110
#: Wider than any line.
_ENDLESS: Final = 100_000
_FIGURES: Final = ("active", "queue", "req/s", "tok/s", "p50", "p95", "errors")


class Overview:
    """The workers, as wide as the console is.

    Args:
        workers: what is known of them.
        stale: whether the connection is lost, so that nothing new comes.
    """

    def __init__(self, workers: Mapping[str, WorkerView], *, stale: bool = False) -> None:
        self._workers = workers
        self._stale = stale
        self._figures = {worker: figures_of(view) for worker, view in workers.items()}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._workers:
            table = self._table()
            natural = natural_width(console, table)
            yield from [table] if options.max_width >= min(natural, _ROOMY) else self._blocks(options.max_width)
        yield from self._remarks()

    def _table(self) -> Table:
        shown = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
        shown.add_column("worker", overflow="fold")
        shown.add_column("state", no_wrap=True)
        shown.add_column("model", overflow="fold")
        for name in _FIGURES:
            shown.add_column(name, justify="right", no_wrap=True)
        for worker, view in self._workers.items():
            shown.add_row(_name(worker), _state(view), _model(view), *_cells(self._figures[worker]))
        total = self._total()
        if total is not None:
            shown.add_section()
            shown.add_row(total[0], "", "", *total[1])
        return shown

    def _blocks(self, width: int) -> Iterator[Text]:
        for worker, view in self._workers.items():
            yield Text(" ").join([part for part in (_name(worker), _state(view), _model(view)) if part])
            if (figures := self._figures[worker]) is not None:
                yield from in_lines(_FIGURES, _cells(figures), width)
        total = self._total()
        if total is not None:
            yield total[0]
            yield from in_lines(_FIGURES, total[1], width)

    def _total(self) -> tuple[Text, tuple[str, ...]] | None:
        """Of all who have figures, where there are several."""
        known = [figures for figures in self._figures.values() if figures is not None]
        if len(known) <= 1:
            return None
        return Text(f"all {len(known)}", "bold"), _cells(together(known))

    def _remarks(self) -> Iterator[Text]:
        if self._stale:
            yield Text("the broker is away; this is old")
        elif not self._workers:
            yield Text("No worker has said anything on this broker.")
        else:
            for worker, view in self._workers.items():
                if filling := _filling(view):
                    yield Text.assemble(_name(worker), f": {filling}")


def _name(worker: str) -> Text:
    return Text(shown_in_line(worker))


def _state(view: WorkerView) -> Text:
    presence = view.presence
    if presence is None:
        return Text("unknown")
    since = "" if presence.since is None else f" {format_age(time.time() - presence.since)}"
    return Text.assemble((presence.state, _STYLES[presence.state]), (since, "dim"))


def _model(view: WorkerView) -> Text:
    return Text("" if view.presence is None else shown_in_line(view.presence.model or ""))


def natural_width(console: Console, table: Table) -> int:
    """The columns that a table takes where nothing is folded or cut."""
    return Measurement.get(console, console.options.update(max_width=_ENDLESS), table).maximum


def in_lines(names: Iterable[str], cells: Iterable[str], width: int) -> Iterator[Text]:
    """A row of a table that is too wide: each figure with its name, folded and indented."""
    # Neither parts from the other, nor a figure from its unit: by a space that does not break.
    pairs = (f"{name} {cell}".replace(" ", "\N{NO-BREAK SPACE}") for name, cell in zip(names, cells, strict=True))
    for line in textwrap.wrap("  ".join(pairs), width, initial_indent="  ", subsequent_indent="  "):
        yield Text(line.replace("\N{NO-BREAK SPACE}", " "))


def _filling(view: WorkerView) -> str:
    """What is worth a glance: bounded things that are more than half full, and replies that were given up."""
    if view.stats is None or view.is_gone:
        return ""
    full = {
        name: level.now / level.bound
        for name, level in view.stats.levels.items()
        if level.bound and level.now / level.bound > _WORTH_A_GLANCE
    }
    said = [f"{shown_in_line(name)} {share:.0%} full" for name, share in full.items()]
    dropped = view.stats.replies_dropped
    return ", ".join([*said, f"{dropped} replies dropped"] if dropped else said)


def _cells(figures: Figures | None) -> tuple[str, ...]:
    if figures is None:
        return ("-",) * len(_FIGURES)
    return (
        _of(figures.active, figures.capacity),
        _of(figures.queued, figures.queue_size),
        _number(figures.requests_per_s),
        _number(figures.tokens_per_s),
        _milliseconds(figures.p50),
        _milliseconds(figures.p95),
        str(figures.errors),
    )


def format_age(seconds: float) -> str:
    """How long ago, in its largest whole unit."""
    whole = max(int(seconds), 0)
    for unit in (86400, 3600, 60):
        if whole >= unit:
            whole -= whole % unit
            break
    return format_duration(whole)


def _of(number: int, most: int | None) -> str:
    return str(number) if most is None else f"{number}/{most}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"  # noqa: PLR2004


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}ms" if value < 1000 else f"{value / 1000:.1f}s"  # noqa: PLR2004
