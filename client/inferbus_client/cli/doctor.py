"""`inferbus doctor`: checks the way end to end, and says what is wrong in words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.text import Text

from inferbus_client.checks import CheckResult, check_all
from inferbus_client.cli.connection import client_options, load_settings
from inferbus_client.cli.exits import Exit
from inferbus_client.shown import shown_in_line

_MARKS: Final = {"ok": ("ok", "green"), "warning": ("warn", "yellow"), "failed": ("FAIL", "red"), "info": ("", "dim")}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each check.")
@client_options()
def doctor(config: Path | None, *, as_json: bool, **flags: Any) -> int:
    """Check the broker, the round trip, the worker and the first answer.

    Where the worker is installed, also this machine: the GPU, vLLM, the effective settings.
    """
    results = check_all(load_settings(flags, config))
    shown = _print_json(results) if as_json else _print(results)
    failed = [result for result in shown if result.verdict == "failed"]
    if not failed:
        return Exit.OK
    return Exit.BROKER if failed[0].name == "broker" else Exit.FAILED


def _print(results: Iterable[CheckResult]) -> list[CheckResult]:
    console = Console(highlight=False)
    shown = []
    for result in results:
        mark, style = _MARKS[result.verdict]
        console.print(Text.assemble((f"{mark:<5}", style), (f"{result.name:<13}", "bold"), shown_in_line(result.text)))
        shown.append(result)
    return shown


def _print_json(results: Iterable[CheckResult]) -> list[CheckResult]:
    shown = []
    for result in results:
        click.echo(json.dumps(asdict(result)))
        shown.append(result)
    return shown
