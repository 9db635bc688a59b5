"""Every worker at a glance: a table where it fits, a few lines for each where it does not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from inferbus_client.cli.cells import folded, in_lines, natural_width
from inferbus_client.cli.slots_table import SlotsTables
from inferbus_client.fleet.columns import WORKER_COLUMNS
from inferbus_client.fleet.figures import Figures, figures_of, together
from inferbus_client.fleet.groups import groups_of
from inferbus_client.fleet.troubles import what_fills
from inferbus_client.fleet.watch import WorkerView
from inferbus_client.shown import shown_in_line
from inferbus_client.units import format_duration

_STYLES: Final = {"ready": "green", "loading": "yellow", "draining": "yellow", "offline": "red"}
#: From so many columns on the table folds long names; with fewer there would be more of their lines than of figures.
_ROOMY: Final = 110
_FIGURES: Final = tuple(column.name for column in WORKER_COLUMNS)


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
        yield SlotsTables(self._workers)
        yield from self._groups(options.max_width)
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
            head = Text(" ").join([part for part in (_name(worker), _state(view), _model(view)) if part])
            yield head if head.cell_len <= width else Text("\n".join(folded(head.plain, width)))
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

    def _groups(self, width: int) -> Iterator[Text]:
        for group in groups_of(self._workers):
            head = Text.assemble(("group ", "bold"), (group.name, "bold"), f": {group.summary}")
            yield head if head.cell_len <= width else Text("\n".join(folded(head.plain, width)))
            for line in group.lines():
                yield Text("\n".join(folded(f"  {line}", width, indent="    ")))

    def _remarks(self) -> Iterator[Text]:
        if self._stale:
            yield Text("the broker is away; this is old")
        elif not self._workers:
            yield Text("No worker has said anything on this broker.")
        else:
            for worker, view in self._workers.items():
                if filling := what_fills(view):
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


def _cells(figures: Figures | None) -> tuple[str, ...]:
    if figures is None:
        return ("-",) * len(_FIGURES)
    return tuple(column.cell(figures) for column in WORKER_COLUMNS)


def format_age(seconds: float) -> str:
    """How long ago, in its largest whole unit."""
    whole = max(int(seconds), 0)
    for unit in (86400, 3600, 60):
        if whole >= unit:
            whole -= whole % unit
            break
    return format_duration(whole)
