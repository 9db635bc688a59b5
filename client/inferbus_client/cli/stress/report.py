"""What a person sees of a run: the progress, then tables of at most 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Column, Table
from rich.text import Text

from inferbus_client.cli.cells import in_lines, natural_width
from inferbus_client.cli.stress.plan import Plan
from inferbus_client.cli.stress.result import Result, Spread, versions
from inferbus_client.cli.stress.sweep import Verdict

#: What is shown of how values are spread, behind their name.
_SPREAD: Final = ("", "mean", "p50", "p95", "p99", "max")


class ProgressBar:
    """A bar on standard error, where that is a terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        about = TextColumn("{task.description}", table_column=Column())  # which folds, where there are few columns
        columns = (about, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task: TaskID | None = None

    def begin(self, plan: Plan) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(plan.describe(), total=plan.total)

    def advance(self) -> None:
        if self._task is not None:
            self._bar.advance(self._task)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()


def print_result(console: Console, result: Result) -> None:
    """One level in full."""
    console.print(Text(f"{result.plan.describe()}: {result.wall:.2f} s", style="bold"))
    console.print(_ledger_table(result))
    print_table(console, _SPREAD, _figures(result))
    console.print(f"{format_rate(result.throughput)} requests/s, {format_rate(result.token_throughput)} tokens/s")
    if result.goodput is not None:
        console.print(f"{format_rate(result.goodput)} requests/s in time ({result.plan.goodput})")


def print_about(console: Console, plan: Plan) -> None:
    """What one needs to know to run it again."""
    seed = f"seed {plan.seed}, " if plan.has_schedule else ""
    measured_with = ", ".join(f"{name} {version}" for name, version in versions().items())
    console.print(Text(f"{seed}{measured_with}", style="dim"))


def print_sweep(console: Console, results: Sequence[Result], verdict: Verdict) -> None:
    """All levels, a line each, and the verdict."""
    rows = [
        (
            str(result.plan.clients),
            str(result.sent),
            str(result.answered),
            format_seconds(result.time_per_request),
            format_seconds(result.total.p50),
            format_seconds(result.total.p95),
            format_rate(result.throughput),
            format_rate(result.token_throughput),
        )
        for result in results
    ]
    print_table(console, ("clients", "sent", "answered", "per request", "p50", "p95", "req/s", "tok/s"), rows)
    console.print(Text(verdict.text, style="bold"))


def _ledger_table(result: Result) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(min_width=12)
    table.add_column(justify="right", min_width=8)
    table.add_column(style="dim")
    rows = (
        ("sent", result.sent, ""),
        ("answered", result.answered, ""),
        ("refused", sum(result.refused.values()), _codes(result.refused)),
        ("failed", sum(result.failed.values()), _codes(result.failed)),
        ("lost", result.lost, ""),
        ("duplicated", result.duplicated, ""),
        ("late", result.late, ""),
        ("unfinished", result.unfinished, ""),
    )
    for name, number, detail in rows:
        if number or name != "unfinished":
            table.add_row(name, str(number), detail)
    if result.gaps:
        table.add_row("stream gaps", str(result.gaps), "messages lost on the way; the answers are whole")
    if result.restarted:
        table.add_row("restarted", str(result.restarted), "begun anew by another worker of a group")
    return table


def _figures(result: Result) -> list[tuple[str, ...]]:
    times = (
        ("first token", result.first_token),
        ("inter-token", result.inter_token),
        ("per output token", result.per_token),
        ("total", result.total),
    )
    lengths = (("input length", result.input_lengths), ("output length", result.output_lengths))
    return [
        *((name, *map(format_seconds, _values(spread))) for name, spread in times),
        *((name, *("-" if value is None else f"{value:.4g}" for value in _values(spread))) for name, spread in lengths),
    ]


def print_table(console: Console, names: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    """A table where it fits; else each row in lines of its own, since a figure that is cut is none."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for name in names:
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    if natural_width(console, table) <= console.width:
        console.print(table)
        return
    for first, *cells in rows:
        console.print(Text(f"{names[0]} {first}".lstrip()))
        for line in in_lines(names[1:], cells, console.width):
            console.print(line)


def _values(spread: Spread) -> tuple[float | None, ...]:
    return spread.mean, spread.p50, spread.p95, spread.p99, spread.max


def _codes(codes: dict[str, int]) -> str:
    return ", ".join(f"{code} {number}" for code, number in sorted(codes.items()))


def format_seconds(value: float | None) -> str:
    """A time in three significant digits; a dash where there is none."""
    if value is None:
        return "-"
    return f"{format_rate(value)} s" if value >= 1 else f"{format_rate(value * 1000)} ms"


def format_rate(value: float) -> str:
    """Three significant digits, without exponents."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"  # noqa: PLR2004
