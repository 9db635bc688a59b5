"""`inferbus conformance`: does what serves on this bus keep to the contract?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from inferbus_client.cli.connection import client_options, load_settings
from inferbus_client.conformance.case import CASES, Case, MqttVersion, load_cases
from inferbus_client.conformance.play import Player, Verdict, versions_on, worker_of
from inferbus_client.contract.topics import NAME, is_worker
from inferbus_client.exits import Exit
from inferbus_client.settings.client import ClientSettings
from inferbus_client.shown import shown_in_line

#: Of no use here: what is asked, how long for, and by whom stands in the cases.
_NOT_ASKED: Final = frozenset({"session", "qos", "first_timeout", "silence_timeout", "retries", "pacing"})


class _Played(NamedTuple):
    case: Case
    version: MqttVersion
    verdict: Verdict


@click.command(short_help="Try whether what serves on a bus keeps to the contract.")
@click.option("--cases", type=click.Path(path_type=Path), metavar="FOLDER", help="Cases of your own, instead (*.yaml).")
@click.option("--only", metavar="TEXT", help="Only cases whose half or name has this in it.")
@click.option("--worker", metavar="NAME", help="Whose presence and stats are looked at; else the first that is ready.")
@click.option("--tools", is_flag=True, help="The project allows tools: play the cases that need them, too.")
@click.option("--list", "lists", is_flag=True, help="Print the cases, and play none.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each case.")
@client_options(hidden=_NOT_ASKED, defaults={"timeout": "30"})
def conformance(
    config: Path | None, *, cases: Path | None, only: str | None, lists: bool, tools: bool, **flags: Any
) -> int:
    """Try whether what serves on a bus keeps to the contract, in MQTT 3.1.1 and in 5.

    Every case has a session of its own, sends what a device would, and looks at all that comes. It asks the model
    for a few words some forty times. 0: every case holds; 1: one does not.
    """
    as_json, worker = flags.pop("as_json"), flags.pop("worker")
    allowed = {None, "tools"} if tools or lists else {None}
    chosen = [
        case
        for case in load_cases(cases or CASES)
        if case.needs in allowed and (only is None or only in f"{case.half}: {case.name}")
    ]
    if not chosen:
        raise click.BadParameter(f"no case has {only!r} in it; --list prints them", param_hint="--only")
    if lists:
        for case in chosen:
            click.echo(f"{case.half}: {case.name}{_when(case)}")
        return Exit.OK
    settings = load_settings(flags, config, timeout=30.0)
    if worker is not None and not is_worker(worker):
        raise click.BadParameter(f"a worker's name matches {NAME}", param_hint="--worker")
    worker = worker_of(settings, settings.first_timeout, worker)
    if not as_json:
        click.echo(f"{shown_in_line(worker)} on {settings.broker}, project {settings.project}")
    failed = played = 0
    for one in _play(settings, chosen, worker):
        played += 1
        failed += one.verdict.problem is not None
        click.echo(_as_json(one) if as_json else _as_line(one))
    if not as_json:
        click.echo(f"{played - failed} of {played} hold")
    return Exit.FAILED if failed or not played else Exit.OK


def _play(settings: ClientSettings, cases: Sequence[Case], worker: str) -> Iterator[_Played]:
    wanted = settings.mqtt_version
    for version in versions_on(settings) if wanted == "auto" else (wanted,):
        with closing(Player(settings, version, worker, settings.timeout)) as player:
            player.connect()
            for case in cases:
                if version in case.mqtt:
                    yield _Played(case, version, player.play(case))


def _when(case: Case) -> str:
    """When it is played, where that is not always."""
    when = [f"MQTT {version} alone" for version in case.mqtt if len(case.mqtt) == 1]
    when += ["--tools"] if case.needs else []
    return f" ({', '.join(when)})" if when else ""


def _as_line(one: _Played) -> str:
    verdict = one.verdict
    mark = "ok  " if verdict.problem is None else "FAIL"
    line = f"{mark} {one.version:<5} {one.case.half}: {one.case.name} ({verdict.seconds:.2f} s)"
    return line if verdict.problem is None else f"{line}\n     {verdict.problem}"


def _as_json(one: _Played) -> str:
    verdict = one.verdict
    return json.dumps(
        {
            "case": one.case.name,
            "half": one.case.half,
            "mqtt": one.version,
            "ok": verdict.problem is None,
            "problem": verdict.problem,
            "seconds": round(verdict.seconds, 3),
        }
    )
