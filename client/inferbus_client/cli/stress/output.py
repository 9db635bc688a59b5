"""Where the figures of a run go: tables, JSON, a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from inferbus_client.cli.stress import find
from inferbus_client.cli.stress.knee import Recommendation
from inferbus_client.cli.stress.report import print_about, print_result, print_sweep
from inferbus_client.cli.stress.result import Result, about
from inferbus_client.cli.stress.sweep import judge
from inferbus_client.cli.terminal import dumb_size
from inferbus_client.errors import SettingsError


def show(results: Sequence[Result], found: Recommendation | None, *, sweep: bool) -> None:
    """As tables. Of a search for the right concurrency, the curve alone."""
    width, height = dumb_size()
    console = Console(highlight=False, width=width, height=height)
    if found is not None:
        find.print_curve(console, results, found)
    else:
        for result in results:
            print_result(console, result)
            console.print()
    if sweep:
        print_sweep(console, results, judge(results))
    if results:
        print_about(console, results[0].plan)


def as_json(results: Sequence[Result], found: Recommendation | None) -> dict[str, Any]:
    figures: dict[str, Any] = {"levels": [result.as_dict() for result in results]}
    if results:
        figures["run"] = about(results[0].plan)
    if found is not None:
        figures["recommended"] = find.as_json(found)
    elif len(results) > 1:
        verdict = judge(results)
        figures["verdict"] = {"kind": verdict.kind, "text": verdict.text}
    return figures


def save(results: Sequence[Result], found: Recommendation | None, file: Path) -> None:
    """The same as JSON, into a file.

    Raises:
        SettingsError: it cannot be written.
    """
    try:
        file.write_text(json.dumps(as_json(results, found), indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise SettingsError(f"cannot write {file}: {error.strerror}") from None
    click.echo(f"The result is in {file}.", err=True)
