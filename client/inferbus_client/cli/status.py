"""`inferbus status`: every worker on the bus, live."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from inferbus_client.cli.connection import client_options, load_settings
from inferbus_client.cli.exits import Exit
from inferbus_client.topics import NAME, is_worker
from inferbus_client.units import format_duration
from inferbus_client.watch import Watch, WorkerView

_STYLES: Final = {"ready": "green", "loading": "yellow", "draining": "yellow", "offline": "red"}
_REFRESH: Final = 0.5
_WORTH_A_GLANCE: Final = 0.5
#: Retained presence comes with the subscription; this is for a slow link.
_GATHER: Final = 1.0


@click.command()
@click.option("--once", is_flag=True, help="Print it once and leave: 0 if a worker is ready, 1 if none is.")
@click.option("--worker", metavar="NAME", help="This one alone.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, one line (with --once), or one line per change.")
@client_options()
def status(config: Path | None, *, once: bool, worker: str | None, as_json: bool, **flags: Any) -> int:
    """Show every worker: state, model, load, rates and latencies, from what they say of themselves."""
    settings = load_settings(flags, config)
    if worker is not None and not is_worker(worker):
        raise click.BadParameter(f"a worker's name matches {NAME}", param_hint="--worker")
    with Watch(settings, settings.client_id or f"inferbus-status-{uuid.uuid4().hex[:8]}", worker) as watch:
        watch.wait_for(bool, _GATHER)
        if once:
            return _print_once(watch, as_json=as_json)
        return _follow_json(watch) if as_json else _follow(watch)


def _print_once(watch: Watch, *, as_json: bool) -> Exit:
    # The first worker is here; others' retained messages follow at once.
    time.sleep(_GATHER / 4)
    workers = watch.workers
    if as_json:
        click.echo(json.dumps(as_fields(workers)))
    else:
        Console(highlight=False).print(table(workers))
    ready = any(view.presence is not None and view.presence.state == "ready" for view in workers.values())
    return Exit.OK if ready else Exit.FAILED


def _follow(watch: Watch) -> Exit:
    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        while True:
            live.update(table(watch.workers, stale=not watch.is_up), refresh=True)
            time.sleep(_REFRESH)


def _follow_json(watch: Watch) -> Exit:
    last = None
    while True:
        if (line := json.dumps(as_fields(watch.workers))) != last:
            click.echo(last := line)
        time.sleep(_REFRESH)


def as_fields(workers: Mapping[str, WorkerView]) -> dict[str, Any]:
    """Presence and stats as the workers said them."""
    return {
        worker: {
            "presence": None if view.presence is None else view.presence.model_dump(by_alias=True, mode="json"),
            "stats": None if view.stats is None else view.stats.model_dump(by_alias=True, mode="json"),
        }
        for worker, view in workers.items()
    }


def table(workers: Mapping[str, WorkerView], *, stale: bool = False) -> Table:
    """The workers, at most 80 columns wide."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), caption=_caption(workers, stale=stale))
    for name in ("worker", "state", "model"):
        shown.add_column(name, overflow="ellipsis", no_wrap=True, max_width=18)
    for name in ("active", "queue", "req/s", "tok/s", "p50", "p95", "errors"):
        shown.add_column(name, justify="right", no_wrap=True)
    for worker, view in workers.items():
        shown.add_row(*_identity(worker, view), *_figures(view))
    return shown


def _caption(workers: Mapping[str, WorkerView], *, stale: bool) -> Text | None:
    if stale:
        return Text("the broker is away; this is old")
    if not workers:
        return Text("No worker has said anything on this broker.")
    lines = [f"{worker}: {filling}" for worker, view in workers.items() if (filling := _filling(view))]
    return Text("\n".join(lines)) if lines else None


def _filling(view: WorkerView) -> str:
    """What is worth a glance: bounded things that are more than half full, and replies that were given up."""
    if view.stats is None or _is_gone(view):
        return ""
    full = {
        name: level.now / level.bound
        for name, level in view.stats.levels.items()
        if level.bound and level.now / level.bound > _WORTH_A_GLANCE
    }
    said = [f"{name} {share:.0%} full" for name, share in full.items()]
    dropped = view.stats.replies_dropped
    return ", ".join([*said, f"{dropped} replies dropped"] if dropped else said)


def _is_gone(view: WorkerView) -> bool:
    return view.presence is not None and view.presence.state == "offline"


def _identity(worker: str, view: WorkerView) -> tuple[Text, Text, Text]:
    if view.presence is None:
        return Text(worker), Text("unknown"), Text("")
    presence = view.presence
    since = "" if presence.since is None else f" {format_age(time.time() - presence.since)}"
    state = Text.assemble((presence.state, _STYLES[presence.state]), (since, "dim"))
    return Text(worker), state, Text(presence.model or "")


def _figures(view: WorkerView) -> tuple[str, ...]:
    stats = view.stats
    if stats is None or _is_gone(view):
        return ("-",) * 7
    return (
        _of(stats.active, stats.capacity),
        _of(stats.queued, stats.queue_size),
        _number(stats.requests_per_s),
        _number(stats.tokens_per_s),
        _milliseconds(stats.latency_ms.p50),
        _milliseconds(stats.latency_ms.p95),
        str(stats.errors + sum(stats.rejected.values())),
    )


def format_age(seconds: float) -> str:
    """How long ago, in its largest whole unit."""
    whole = max(int(seconds), 0)
    for unit in (86400, 3600, 60):
        if whole >= unit:
            whole -= whole % unit
            break
    return format_duration(whole)


def _of(number: int, most: int | None) -> str:
    return str(number) if most is None else f"{number}/{most}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"  # noqa: PLR2004


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}ms" if value < 1000 else f"{value / 1000:.1f}s"  # noqa: PLR2004
