"""The models and slots of the workers that have several, below the table of all workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from inferbus_client.cli.cells import folded, in_lines, natural_width
from inferbus_client.contract.presence import ModelStats
from inferbus_client.fleet.columns import SLOT_COLUMNS, STATE_MEANINGS
from inferbus_client.fleet.watch import WorkerView
from inferbus_client.shown import shown_in_line

_STYLES: Final = {
    "ready": "green",
    "starting": "yellow",
    "stopped": "dim",
    "unavailable": "red",
    "down": "red",
    "dead": "red",
    "half-open": "yellow",
    "open": "red",
}
#: States of which a worker's own state says enough, where it has a single slot. Empty: an older worker does not tell.
_FINE: Final = frozenset({"", "ready", "starting", "stopped"})
#: Of one worker. Anyone may announce one.
_MOST_ROWS: Final = 300
_FIGURES: Final = ("queue", *(column.name for column in SLOT_COLUMNS))
#: A model none of whose slots has said anything.
_NO_SLOT: Final = ("-",) * (len(_FIGURES) - 1)


class Row(NamedTuple):
    """One slot, or a model that has none now. Names and words are shown as text."""

    model: str
    slot: str
    backend: str
    state: str
    breaker: str
    figures: tuple[str, ...]


def rows_of(view: WorkerView) -> list[Row]:
    """A worker's; none where one model has one slot and that is well, or the worker has gone."""
    if view.is_gone:
        return []
    models = {} if view.stats is None else dict(view.stats.models)
    if view.presence is not None:
        for name, state in view.presence.models.items():
            models.setdefault(name, ModelStats(state=state))
    slots = [slot for model in models.values() for slot in model.slots.values()]
    is_well = all(slot.breaker == "closed" and slot.state in _FINE for slot in slots)
    if len(models) <= 1 and len(slots) <= 1 and is_well and all(model.state in _FINE for model in models.values()):
        return []
    return [row for name, model in models.items() for row in _rows(name, model)]


def _rows(name: str, model: ModelStats) -> Iterator[Row]:
    queued = str(model.queued)
    if not model.slots:
        yield Row(shown_in_line(name), "-", "-", shown_in_line(model.state), "-", (queued, *_NO_SLOT))
    for slot, stats in model.slots.items():
        backend, state, breaker = (shown_in_line(word) or "-" for word in (stats.backend, stats.state, stats.breaker))
        figures = (queued, *(column.cell(stats) for column in SLOT_COLUMNS))
        yield Row(shown_in_line(name), shown_in_line(slot), backend, state, breaker, figures)
        queued = ""  # it is the model's, and stands in its first line


class SlotsTables:
    """The tables, one for each worker that has something to show; lines where a table does not fit."""

    def __init__(self, workers: Mapping[str, WorkerView]) -> None:
        self._workers = {worker: rows for worker, view in workers.items() if (rows := rows_of(view))}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for worker, rows in self._workers.items():
            yield Text(shown_in_line(worker), "bold")
            table = _table(rows[:_MOST_ROWS])
            fits = natural_width(console, table) <= options.max_width
            yield from [table] if fits else _blocks(rows[:_MOST_ROWS], options.max_width)
            if len(rows) > _MOST_ROWS:
                yield Text(f"and {len(rows) - _MOST_ROWS} more")
            told = {word for row in rows for word in (row.state, row.breaker)}
            meanings = [f"{word}: {meaning}" for word, meaning in STATE_MEANINGS.items() if word in told]
            # Why it came to that holds names of hosts, and stays in the log.
            if meanings:
                for line in (*meanings, "The worker's log says why."):
                    yield Text("\n".join(folded(line, options.max_width)))


def _table(rows: list[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for name in ("model", "slot", "backend", "state", "breaker"):
        table.add_column(name, no_wrap=True)
    for name in _FIGURES:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(Text(row.model), Text(row.slot), Text(row.backend), *_styled(row), *row.figures)
    return table


def _blocks(rows: list[Row], width: int) -> Iterator[Text]:
    for row in rows:
        words = [Text(row.model), Text(row.slot), Text(row.backend), *_styled(row)]
        head = Text(" ").join([word for word in words if word.plain != "-"])
        yield head if head.cell_len <= width else Text("\n".join(folded(head.plain, width)))
        figures = {name: cell for name, cell in zip(_FIGURES, row.figures, strict=True) if cell not in {"", "-"}}
        yield from in_lines(figures, figures.values(), width)


def _styled(row: Row) -> tuple[Text, Text]:
    return Text(row.state, _STYLES.get(row.state, "")), Text(row.breaker, _STYLES.get(row.breaker, ""))
