"""The command line of `inferbus batch`."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, closing
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import click

from inferbus_client.aio import AsyncClient
from inferbus_client.cli.batch.lines import Requests, rewindable
from inferbus_client.cli.batch.progress import Progress, Tally
from inferbus_client.cli.batch.records import Records, name_of
from inferbus_client.cli.batch.run import Run, Task
from inferbus_client.cli.connection import client_options, load_settings
from inferbus_client.cli.sampling import refusal
from inferbus_client.cli.streams import complain, require_input
from inferbus_client.cli.stress.parameters import new_file, some_seconds
from inferbus_client.errors import InferbusError, SettingsError
from inferbus_client.exits import Exit
from inferbus_client.settings.client import ClientSettings
from inferbus_client.shown import shown_in_line

#: Of a client in no hurry, whose requests wait for no other.
_OWN_DEFAULTS: Final = {"pacing": "0s", "timeout": "10m"}


def _output_file(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """A file that can be written, or standard output."""
    return None if value == "-" else new_file()(context, parameter, value)


@click.command(short_help="Ask what stands in a file, and write the answers into another.")
@click.argument("requests", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "-o",
    "--output",
    required=True,
    callback=_output_file,
    metavar="FILE",
    help="The answers; - is standard output. What has an answer there already is not asked again.",
)
@click.option(
    "--errors",
    callback=new_file(),
    metavar="FILE",
    help="What could not be answered, anew in each run. [default: FILE.errors.jsonl beside FILE.jsonl]",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Requests at once. [default: as many as the worker runs at once, at most 256]",
)
@click.option(
    "--patience",
    callback=some_seconds,
    metavar="TIME",
    default="10m",
    show_default=True,
    help="End where nobody has answered for so long.",
)
@click.option("--model", metavar="NAME", help="Which one is to answer, whatever the lines say.")
@client_options(skip=("session",), hidden=("pacing",), defaults=_OWN_DEFAULTS)
def batch(
    requests: str,
    config: Path | None,
    *,
    output: Path | None,
    errors: Path | None,
    concurrency: int | None,
    patience: float,
    model: str | None,
    **flags: Any,
) -> int:
    """Ask what stands in REQUESTS, in OpenAI's batch format, and write the answers in it.

    REQUESTS has one request a line (`-`: standard input). Answers come in the order in which they are there. After
    Ctrl-C, a crash or a worker's end the same command goes on where it was; what failed is tried again.
    """
    if (reason := refusal({"model": model}, lambda name: f"--{name}")) is not None:
        raise click.UsageError(reason)
    if requests == "-":
        require_input()
    settings = load_settings(flags, config, **_OWN_DEFAULTS)
    errors = _beside(output) if errors is None else errors
    _refuse_one_file_for_two(requests, output, errors)
    with ExitStack() as files:
        asked = Requests(files.enter_context(rewindable(requests)), _called(requests), model or "")
        answers = files.enter_context(closing(Records(output)))
        failures = files.enter_context(closing(Records(errors)))
        done, failed = answers.past(), failures.past()
        contents = asked.check(done)
        if contents.answered < len(done):
            other = answers.called(asked.unknown(done))
            raise SettingsError(
                f"{answers.name} answers {other!r}, which {asked.name} does not ask, or asks otherwise: give every "
                "batch, and every --model, a file of its own"
            )
        failures.clear()
        name = name_of(contents.identity, output)
        client_id = settings.client_id or f"inferbus-batch-{name[:16]}"
        task = Task(asked, answers, failures, done, failed, f"batch-{name[16:]}", model, concurrency, patience)
        tally = Tally(contents.total, contents.answered)
        return _carried_out(settings.model_copy(update={"client_id": client_id}), task, tally)


def _carried_out(settings: ClientSettings, task: Task, tally: Tally) -> Exit:
    """Run it; whatever ends it, how far it has come is said."""
    try:
        if tally.left:
            with Progress(tally) as progress:
                asyncio.run(_converse(settings, task, tally, progress))
    except KeyboardInterrupt:
        complain(f"inferbus: interrupted; {tally.summary()}. The same command goes on with the rest.")
        return Exit.INTERRUPTED
    except (InferbusError, OSError):
        if tally.answered or tally.failed:
            complain(f"inferbus: {tally.summary()}. The same command goes on with the rest.")
        raise
    complain(f"inferbus: {tally.summary()}" + (f"; see {task.errors.name}" if tally.failed else ""))
    return Exit.FAILED if tally.failed else Exit.OK


async def _converse(settings: ClientSettings, task: Task, tally: Tally, progress: Progress) -> None:
    async with AsyncClient(settings) as client:
        await Run(client, task, tally).run(progress)


def _called(requests: str) -> str:
    return "standard input" if requests == "-" else requests


def _beside(output: Path | None) -> Path:
    if output is None:
        raise click.UsageError("with -o - the errors need a file of their own: name it with --errors.")
    return output.with_name(f"{output.stem}.errors{output.suffix}")


def _refuse_one_file_for_two(requests: str, output: Path | None, errors: Path) -> None:
    named = {"REQUESTS": None if requests == "-" else Path(requests), "--output": output, "--errors": errors}
    files = [(name, path) for name, path in named.items() if path is not None]
    for (first, one), (second, other) in combinations(files, 2):
        if one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other)):
            raise click.UsageError(f"{first} and {second} are one file, {shown_in_line(str(other))}.")
