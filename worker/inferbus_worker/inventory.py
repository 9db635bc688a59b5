"""`inferbus state`: how much the store has of a group, and forgetting some of it by name."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from inferbus_client.cli.cells import folded
from inferbus_client.cli.options import given, settings_options
from inferbus_client.errors import SettingsError
from inferbus_client.exits import Exit
from inferbus_client.settings.sources import nearest
from inferbus_client.shown import shown_in_line
from inferbus_client.units import format_size
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.errors import StoreError
from inferbus_worker.state.redis.calls import Call
from inferbus_worker.state.redis.connection import Store
from inferbus_worker.state.redis.conversations import Conversations
from inferbus_worker.state.redis.fleet import Fleet, Sizes
from inferbus_worker.state.redis.groups import groups_in
from inferbus_worker.state.redis.places import store_of
from inferbus_worker.state.redis.scripted import schema_key
from inferbus_worker.state.redis.scripts import sources

T = TypeVar("T")

_SHARED: Final = frozenset({"state", "state_file", "group"})
_OTHERS: Final = frozenset(Settings.model_fields) - _SHARED
#: Jobs that are dropped from a lane in one go, so that the store does not stop for long.
_AT_ONCE: Final = 1000
#: Groups that a sentence lists.
_NAMED: Final = 20


class _Calls(Conversations, Fleet):
    """Those that are no worker's."""


class _Keeper:
    """A group's store, asked by somebody who waits at a terminal."""

    def __init__(self, settings: Settings) -> None:
        if not settings.is_shared:
            raise SettingsError("--state (or --state-file, or INFERBUS_STATE) has to name the store")
        self._store = Store(store_of(settings))
        self.place = str(self._store.url)
        self.group = settings.group
        # Neither the lease nor the time that sessions are kept is in any of the calls made here.
        self.calls = _Calls(settings.group, "", "", lease=settings.lease, session_ttl=settings.session_ttl)
        self._scripts = sources()

    def ask(self, call: Call[T]) -> T:
        """The answer to one call, over a connection of its own."""
        wire = self._store.wire(self._store.place_of(call.keys[0]))
        try:
            if call.name.isupper():
                return call.read(wire.ask(call.name, *call.keys, *call.args))
            return call.read(wire.ask("EVAL", self._scripts[call.name], len(call.keys), *call.keys, *call.args))
        finally:
            wire.close()

    def absence(self) -> str | None:
        """A sentence where the store has no such group, with those that it has; None where it has it."""
        wire = self._store.wire(self._store.place_of(self.calls.prefix))
        try:
            if wire.ask("EXISTS", schema_key(self.group)):
                return None
        finally:
            wire.close()
        try:
            groups, is_whole = groups_in(self._store)
        except StoreError as error:
            return f"there is no group {self.group} in {self.place}; which there are, it does not say: {error.reason}"
        listed = ", ".join(map(shown_in_line, groups[:_NAMED])) or "none"
        more = " and more" if len(groups) > _NAMED or not is_whole else ""
        return f"there is no group {self.group} in {self.place}{nearest(self.group, groups)}; it has {listed}{more}"


@dataclass(frozen=True)
class _Asked:
    """What the command line says of the store. Looked at when something is asked of it: help needs none."""

    flags: Mapping[str, Any]
    config: Path | None

    def keeper(self) -> _Keeper:
        return _Keeper(Settings.load(self.flags, self.config))


@click.group(invoke_without_command=True, short_help="Show what the store has of a group, and forget some of it.")
@click.option("--config", type=click.Path(path_type=Path), help="A YAML file with these settings.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, sizes in bytes.")
@settings_options(Settings, skip=_OTHERS)
@click.pass_context
def state(context: click.Context, /, config: Path | None, *, as_json: bool, **flags: Any) -> int:
    """Show how much the store that workers share has of their group.

    The store is named as for `inferbus serve`: by --state, by INFERBUS_STATE, or in the file.
    """
    context.obj = asked = _Asked(given(Settings, flags), config)
    if context.invoked_subcommand is None:
        keeper = asked.keeper()
        sizes = keeper.ask(keeper.calls.sizes())
        if not any(sizes) and (absence := keeper.absence()) is not None:
            click.echo(f"inferbus: {absence}", err=True)
            return Exit.FAILED
        click.echo(json.dumps(sizes._asdict()) if as_json else _table(keeper, sizes))
    return Exit.OK


@state.group()
def drop() -> None:
    """Forget a session, what waits in a lane, or a worker's leases."""


_confirmed = click.option("--yes", is_flag=True, help="Do it: it cannot be taken back.")


@drop.command()
@click.argument("name")
@_confirmed
@click.pass_obj
def session(asked: _Asked, /, name: str, *, yes: bool) -> int:
    """Forget the conversation NAME: PROJECT/SESSION, or PROJECT/users/USER/SESSION. A turn in it is not remembered."""
    if "/" not in name:
        raise click.BadParameter("a session is PROJECT/SESSION, or PROJECT/users/USER/SESSION")
    keeper = asked.keeper()
    _check(yes, f"session {name} with its history", keeper)
    was_there = keeper.ask(keeper.calls.drop_session(name))
    for call in keeper.calls.forget([name]):
        keeper.ask(call)
    return _said(int(was_there), f"session {name}: it is forgotten", f"no session {name}", keeper)


@drop.command()
@click.argument("name", metavar="PROJECT/MODEL")
@_confirmed
@click.pass_obj
def lane(asked: _Asked, /, name: str, *, yes: bool) -> int:
    """Forget what waits in a lane. Nobody answers these requests."""
    project, slash, model = name.partition("/")
    if not (project and slash and model):
        raise click.BadParameter("a lane is PROJECT/MODEL, as `inferbus state` shows them")
    keeper = asked.keeper()
    _check(yes, f"all that waits in lane {name}, unanswered", keeper)
    count = 0
    while dropped := keeper.ask(keeper.calls.drop_lane(project, model, _AT_ONCE)):
        count += dropped
    return _said(count, f"lane {name}: {count} forgotten", f"nothing that waits in lane {name}", keeper)


@drop.command()
@click.argument("name", metavar="WORKER")
@_confirmed
@click.pass_obj
def leases(asked: _Asked, /, name: str, *, yes: bool) -> int:
    """Take from a worker all that it runs, for others. What it still answers of it is not taken any more."""
    keeper = asked.keeper()
    _check(yes, f"worker {name}'s leases: others run its requests again", keeper)
    count = keeper.ask(keeper.calls.drop_leases(name))
    return _said(count, f"leases of {name}: {count} for others now", f"no lease of worker {name}", keeper)


def _check(is_sure: bool, what: str, keeper: _Keeper) -> None:  # noqa: FBT001 - click's own
    if not is_sure:
        raise click.UsageError(f"this drops {shown_in_line(what)} (group {keeper.group}); say --yes to do it")


def _said(count: int, done: str, what: str, keeper: _Keeper) -> int:
    if not count:
        said = keeper.absence() or f"there is {shown_in_line(what)} in group {keeper.group}"
        click.echo(f"inferbus: {said}", err=True)
        return Exit.FAILED
    click.echo(shown_in_line(done))
    return Exit.OK


def _table(keeper: _Keeper, sizes: Sizes) -> str:
    rows = [
        ("sessions", str(sizes.sessions)),
        ("histories", format_size(sizes.history_bytes) if sizes.history_bytes else "0"),
        ("waiting", str(sum(sizes.queued.values()))),
        *_below(sizes.queued),
        ("unconfirmed", str(sizes.unconfirmed)),
        ("leases", str(sizes.leases)),
        *_below(sizes.held),
    ]
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    wide = max(len(name) for name, _ in rows)
    table = [f"  {name:<{wide}}  {size:>8}" for name, size in rows]
    if max(map(len, table)) > columns:
        whole = (f"  {name}: {size}".replace(f": {size}", f":\N{NO-BREAK SPACE}{size}") for name, size in rows)
        table = [line for row in whole for line in folded(row, columns, " " * 6)]
    return "\n".join([*folded(f"group {keeper.group} at {keeper.place}", columns), *table])


def _below(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    return [(f"  {shown_in_line(name)}", str(count)) for name, count in sorted(counts.items()) if count]
