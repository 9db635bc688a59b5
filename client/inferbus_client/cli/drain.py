"""`inferbus drain`: one worker finishes what it has, and leaves."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import click

from inferbus_client.cli.connection import OF_A_REQUEST, client_options, load_settings
from inferbus_client.cli.status_line import StatusLine
from inferbus_client.cli.stress.parameters import some_seconds
from inferbus_client.contract.topics import NAME, is_worker
from inferbus_client.exits import Exit
from inferbus_client.fleet.draining import drain as drain_worker
from inferbus_client.fleet.watch import WorkerView


@click.command(short_help="Have a worker finish what it has, and leave.")
@click.argument("worker")
@click.option(
    "--wait",
    callback=some_seconds,
    metavar="TIME",
    default="10m",
    show_default=True,
    help="How long to wait until it has left.",
)
@client_options(hidden=OF_A_REQUEST)
def drain(worker: str, config: Path | None, *, wait: float, **flags: Any) -> int:
    """Have WORKER take no more requests, finish those that it has, and end, as SIGTERM would.

    The worker must allow it (`inferbus serve --remote-drain`), and the broker that this login asks for it.
    """
    settings = load_settings(flags, config)
    if not is_worker(worker):
        raise click.BadParameter(f"a worker's name matches {NAME}", param_hint="WORKER")
    said = f"asking {worker} to leave"

    def progress(view: WorkerView) -> None:
        nonlocal said
        left = "" if view.stats is None else f", {view.stats.active} running, {view.stats.queued} waiting"
        said = f"{worker} is {view.presence.state if view.presence is not None else 'there'}{left}"

    client_id = settings.client_id or f"inferbus-drain-{uuid.uuid4().hex[:8]}"
    with StatusLine(lambda: said):
        was_there = drain_worker(settings, client_id, worker, wait=wait, progress=progress)
    click.echo(f"{worker} has left" if was_there else f"{worker} was gone already")
    return Exit.OK
