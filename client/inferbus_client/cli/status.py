"""`inferbus status`: every worker on the bus, live."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.live import Live

from inferbus_client.cli.connection import OF_A_REQUEST, client_options, load_settings
from inferbus_client.cli.overview import Overview
from inferbus_client.cli.slots_table import rows_of
from inferbus_client.cli.terminal import dumb_size, is_dumb
from inferbus_client.contract.topics import NAME, is_worker
from inferbus_client.errors import UnknownWorkerError
from inferbus_client.exits import Exit
from inferbus_client.fleet.figures import figures_of
from inferbus_client.fleet.groups import groups_of
from inferbus_client.fleet.watch import Watch, WorkerView

_REFRESH: Final = 0.5
#: Workers answer at most once a second, and what they say is of use to everybody who watches.
_ASK_EVERY: Final = 2.0
#: The longest wait for the first answers; one that has just answered somebody else takes a second.
_ANSWERS: Final = 1.5
#: Columns where nobody's eyes are at the other end: lines are as long as they are.
_PIPE: Final = 10_000


@click.command(short_help="Show every worker: state, model, load and latencies.")
@click.option("--once", is_flag=True, help="Print it once and leave: 0 if a worker is ready, 1 if none is.")
@click.option("--worker", metavar="NAME", help="This one alone.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, one line (with --once), or one line per change.")
@client_options(hidden=OF_A_REQUEST)
def status(config: Path | None, *, once: bool, worker: str | None, as_json: bool, **flags: Any) -> int:
    """Show every worker: state, model, load, rates and latencies, as they say when they are asked.

    Where a worker has several models, or several slots for one, each slot has a line of its own below. Workers that
    share their queue and conversations stand there as a group, with what they share and who of them serves what.
    """
    settings = load_settings(flags, config)
    if worker is not None and not is_worker(worker):
        raise click.BadParameter(f"a worker's name matches {NAME}", param_hint="--worker")
    with Watch(settings, settings.client_id or f"inferbus-status-{uuid.uuid4().hex[:8]}") as watch:
        watch.gather()
        if worker is not None and worker not in watch.workers:
            raise UnknownWorkerError(worker, list(watch.workers))
        watch.answered(watch.ask(), _ANSWERS, None if worker is None else [worker])
        if once:
            return _print_once(_seen(watch, worker), as_json=as_json)
        return _follow_json(watch, worker) if as_json else _follow(watch, worker)


def _seen(watch: Watch, worker: str | None) -> dict[str, WorkerView]:
    return {name: view for name, view in watch.workers.items() if worker in {None, name}}


def _print_once(workers: Mapping[str, WorkerView], *, as_json: bool) -> Exit:
    if as_json:
        click.echo(json.dumps(as_fields(workers)))
    else:
        _console().print(Overview(workers))
    ready = any(view.presence is not None and view.presence.state == "ready" for view in workers.values())
    return Exit.OK if ready else Exit.FAILED


def _console() -> Console:
    width, height = dumb_size()
    console = Console(highlight=False, width=width, height=height)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE)


class _Asking:
    """Asks again when it is time to."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._next = time.monotonic() + _ASK_EVERY

    def rest(self) -> None:
        time.sleep(_REFRESH)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _ASK_EVERY
            self._watch.ask()


def _follow(watch: Watch, worker: str | None) -> Exit:
    asking, console = _Asking(watch), _console()
    if not console.is_terminal or is_dumb():
        return _follow_in_tables(watch, worker, asking, console)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(Overview(_seen(watch, worker), stale=not watch.is_up), refresh=True)
            asking.rest()


def _follow_in_tables(watch: Watch, worker: str | None, asking: _Asking, console: Console) -> Exit:
    """Where no line can be taken back: one table after the other, each time that more has changed than the ages."""
    last: object = None
    while True:
        seen, stale = _seen(watch, worker), not watch.is_up
        if (
            said := (
                {name: (view.presence, figures_of(view), rows_of(view)) for name, view in seen.items()},
                groups_of(seen),
                stale,
            )
        ) != last:
            console.print(Overview(seen, stale=stale))
            last = said
        asking.rest()


def _follow_json(watch: Watch, worker: str | None) -> Exit:
    asking, last = _Asking(watch), None
    while True:
        if (line := json.dumps(as_fields(_seen(watch, worker)))) != last:
            click.echo(last := line)
        asking.rest()


def as_fields(workers: Mapping[str, WorkerView]) -> dict[str, Any]:
    """Presence and stats as the workers said them."""
    return {
        worker: {
            "presence": None if view.presence is None else view.presence.model_dump(by_alias=True, mode="json"),
            "stats": None if view.stats is None else view.stats.model_dump(by_alias=True, mode="json"),
        }
        for worker, view in workers.items()
    }
