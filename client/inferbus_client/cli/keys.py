"""`inferbus keys`: who may come in at the gateway."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import click
from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.table import Table

from inferbus_client.cli.terminal import dumb_size
from inferbus_client.contract.topics import is_user
from inferbus_client.errors import SettingsError
from inferbus_client.exits import Exit
from inferbus_client.gateway.keys_file import KeySettings, KeysFile, editing, hash_of, new_token
from inferbus_client.settings.sources import nearest
from inferbus_client.shown import shown, shown_in_line
from inferbus_client.wording import wording

#: Columns where nobody's eyes are at the other end.
_PIPE: Final = 10_000

_FILE = click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="The file that the gateway gets as --api-keys. It sees a change within two seconds.",
)


@click.group(short_help="Make, list and remove the keys of a gateway.")
def keys() -> None:
    """Make, list and remove the keys of a gateway: who may come in, and how much each may have.

    The file holds no key, only hashes.
    """


@keys.command(short_help="Make a key, and print it: the only time.")
@click.argument("name")
@_FILE
@click.option("--project", "projects", multiple=True, metavar="NAME", help="One that it may use. [default: all]")
@click.option("--rate-limit", metavar="N/TIME", help="Requests in a sliding window, such as 60/60s. [default: off]")
@click.option("--max-concurrent", metavar="N", help="Requests that it may have under way. [default: any number]")
@click.option("--operator", is_flag=True, help="It may see metrics, the queue and the live view of the whole bus.")
def add(name: str, file: Path, **limits: Any) -> int:
    """Make a key called NAME, and print it: the only time.

    Workers see the name as the clientId of its requests. A file that is not there yet is made, for its owner alone.
    """
    if not is_user(name):
        raise click.BadParameter("a key's name matches [A-Za-z0-9_.@:-]{1,128}", param_hint="NAME")
    token = new_token()
    key = _key(token, **limits)
    with editing(file) as edited:
        if name in edited.keys:
            raise SettingsError(f"{file} has a key {name} already; `inferbus keys remove` takes it away")
        edited.keys[name] = key
    _say_of_comments(file, edited.lost_comments)
    click.echo(f"The key {name}, which is printed this once:", err=True)
    click.echo(token)
    return Exit.OK


def _key(token: str, projects: tuple[str, ...], **limits: Any) -> KeySettings:
    given = {name: value for name, value in limits.items() if value is not None}
    if projects:  # and not what is in them: of nothing in quotes there would be a key for all
        given["projects"] = [name.strip() for names in projects for name in names.split(",")]
    try:
        return KeySettings.model_validate({"hash": hash_of(token), **given})
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        option = {"projects": "--project"}.get(str(wrong["loc"][0]), f"--{wrong['loc'][0]}".replace("_", "-"))
        raise click.BadParameter(wording(wrong).removeprefix("Value error, "), param_hint=option) from None


@keys.command("list", short_help="Show the names of all keys, and what each may do.")
@_FILE
@click.option("--json", "as_json", is_flag=True, help="As JSON, in one line.")
def list_(file: Path, *, as_json: bool) -> int:
    """Show the names of all keys, and what each may do."""
    said = KeysFile.read(file).keys
    if as_json:
        click.echo(json.dumps({name: _as_fields(key) for name, key in said.items()}))
        return Exit.OK
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for column in ("key", "projects", "rate limit", "at once", "operator"):
        table.add_column(column, overflow="fold")
    for name, key in said.items():
        projects = "all" if key.projects is None else ", ".join(key.projects) or "none"
        limits = (_rate(key) or "off", str(key.max_concurrent or "any"))
        table.add_row(name, projects, *limits, "yes" if key.operator else "no")
    width, height = dumb_size() if sys.stdout.isatty() else (_PIPE, None)
    Console(width=width, height=height, highlight=False, markup=False).print(table)
    return Exit.OK


def _rate(key: KeySettings) -> str | None:
    return None if key.rate_limit is None else str(key.model_dump(mode="json")["rate_limit"])


def _as_fields(key: KeySettings) -> dict[str, Any]:
    return {
        "projects": key.projects,
        "rateLimit": _rate(key),
        "maxConcurrent": key.max_concurrent,
        "operator": key.operator,
    }


@keys.command(short_help="Take a key away.")
@click.argument("name")
@_FILE
def remove(name: str, file: Path) -> int:
    """Take the key called NAME away. Nobody new comes in with it; what is under way goes on to its end."""
    said = KeysFile.read(file).keys
    if name not in said:
        raise SettingsError(f"{file} has no key {name}{nearest(name, said)}")
    with editing(file) as edited:
        edited.keys.pop(name, None)
    _say_of_comments(file, edited.lost_comments)
    click.echo(f"{name} is removed")
    return Exit.OK


def _say_of_comments(file: Path, lost: list[str]) -> None:
    if lost:
        click.echo("\n".join([f"The comments in {shown_in_line(str(file))} are gone:", *map(shown, lost)]), err=True)
