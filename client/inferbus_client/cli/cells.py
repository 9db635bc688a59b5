"""What tables of figures are made of: their cells, and lines where a table does not fit."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Final

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

#: Wider than any line.
_ENDLESS: Final = 100_000


def natural_width(console: Console, table: Table) -> int:
    """The columns that a table takes where nothing is folded or cut."""
    return Measurement.get(console, console.options.update(max_width=_ENDLESS), table).maximum


def in_lines(names: Iterable[str], cells: Iterable[str], width: int) -> Iterator[Text]:
    """A row of a table that is too wide: each figure with its name, folded and indented."""
    # Neither parts from the other, nor a figure from its unit: by a space that does not break.
    pairs = (f"{name} {cell}".replace(" ", "\N{NO-BREAK SPACE}") for name, cell in zip(names, cells, strict=True))
    for line in textwrap.wrap("  ".join(pairs), width, initial_indent="  ", subsequent_indent="  "):
        yield Text(line.replace("\N{NO-BREAK SPACE}", " "))


def folded(text: str, width: int, indent: str = "  ") -> list[str]:
    """A sentence or a row in lines of `width` columns, those below the first indented, with whole words."""
    lines = textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]
