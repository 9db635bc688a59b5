"""`inferbus doctor`: checks the way end to end, says in words what is wrong, and what to do about it."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, Final

import click

from inferbus_client.cli.connection import client_options, load_settings
from inferbus_client.cli.options import given
from inferbus_client.cli.terminal import has_colours
from inferbus_client.exits import Exit
from inferbus_client.fleet.checks import CheckResult, check_all
from inferbus_client.settings.client import ClientSettings
from inferbus_client.settings.origins import in_force
from inferbus_client.shown import shown_in_line

_MARKS: Final = {"ok": ("ok", "green"), "warning": ("warn", "yellow"), "failed": ("FAIL", "red"), "info": ("", "")}
_MARK: Final = 5
_NAME: Final = 13
#: In fewer columns the text begins below the name.
_NARROW: Final = 60


@click.command(short_help="Find what is wrong between here and an answer, in words.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each check.")
@click.option("--state", metavar="URL", help="Where the worker is installed: look at this store of its, too.")
@click.option("--state-file", metavar="FILE", help="The file that holds this store's password, or its whole URL.")
@client_options(hidden={"session", "silence_timeout", "retries", "pacing"})
def doctor(config: Path | None, *, as_json: bool, state: str | None, state_file: str | None, **flags: Any) -> int:
    """Check the broker, the round trip, the worker and the first answer.

    Where the worker is installed, also this machine: the GPU, vLLM, what `inferbus serve` finds in the environment, and
    the store that it names.
    """
    settings = load_settings(flags, config)
    store = {name: value for name, value in (("state", state), ("state_file", state_file)) if value is not None}
    said = CheckResult("settings", "info", in_force(settings, given(ClientSettings, flags), config))
    results = _printed(chain([said], check_all(settings, store)), as_json=as_json)
    failed = [result for result in results if result.verdict == "failed"]
    if not failed:
        return Exit.OK
    return Exit.BROKER if failed[0].name == "broker" else Exit.FAILED


def _printed(results: Iterable[CheckResult], *, as_json: bool) -> Iterator[CheckResult]:
    """Each result, once it has been printed."""
    for result in results:
        click.echo(json.dumps(asdict(result)) if as_json else _in_lines(result))
        yield result


def _in_lines(result: CheckResult) -> str:
    """As it is at a terminal, folded to its width; for a pipe, one line."""
    mark, colour = _MARKS[result.verdict]
    text, remedy = shown_in_line(result.text), shown_in_line(result.remedy)
    head, name = f"{mark:<{_MARK}}", f"{result.name:<{_NAME}}"
    if has_colours():
        head, name = click.style(head, fg=colour or None), click.style(name, bold=True)
    if not sys.stdout.isatty():
        return head + name + (f"{text.rstrip('.')}. {remedy}" if remedy else text)
    return head + name + _folded(text, remedy)


def _folded(text: str, remedy: str) -> str:
    columns = shutil.get_terminal_size().columns
    indent = _MARK if columns < _NARROW else _MARK + _NAME
    lines = [
        line
        for part in (text, remedy)
        for line in textwrap.wrap(part, max(columns - indent, 20), break_long_words=False, break_on_hyphens=False)
    ]
    below = "\n" + " " * indent
    return below.join(["", *lines] if indent == _MARK else lines)
