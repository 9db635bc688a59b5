"""`inferbus forget`: what a worker that is gone for good has left on the broker."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import click

from inferbus_client.cli.connection import OF_A_REQUEST, client_options, load_settings
from inferbus_client.contract.topics import NAME, is_worker
from inferbus_client.exits import Exit
from inferbus_client.fleet.forgetting import forget as forget_worker


@click.command(short_help="Remove a worker that will not come back from `status`.")
@click.argument("worker")
@click.option("--force", is_flag=True, help="Also one that lives; it is seen again when it next says something.")
@client_options(hidden=OF_A_REQUEST)
def forget(worker: str, config: Path | None, *, force: bool, **flags: Any) -> int:
    """Remove WORKER, which will not come back, from what `status` shows."""
    settings = load_settings(flags, config)
    if not is_worker(worker):
        raise click.BadParameter(f"a worker's name matches {NAME}", param_hint="WORKER")
    forget_worker(settings, settings.client_id or f"inferbus-forget-{uuid.uuid4().hex[:8]}", worker, force=force)
    click.echo(f"{worker} is forgotten")
    return Exit.OK
