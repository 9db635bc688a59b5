"""The command line of `inferbus stress`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from rich.console import Console

from inferbus_client.cli.connection import client_options, load_settings
from inferbus_client.cli.sampling import ask_options, sampling_options
from inferbus_client.cli.stress.objectives import Objectives
from inferbus_client.cli.stress.parameters import Number, counts, new_file, objectives, seconds, share, some_seconds
from inferbus_client.cli.stress.plan import Plan
from inferbus_client.cli.stress.plot import ENDINGS, plot, require_matplotlib
from inferbus_client.cli.stress.refusals import refuse
from inferbus_client.cli.stress.report import ProgressBar, print_about, print_result, print_sweep
from inferbus_client.cli.stress.result import Result, about
from inferbus_client.cli.stress.session import StressSession
from inferbus_client.cli.stress.sweep import judge
from inferbus_client.errors import BrokerError, SettingsError
from inferbus_client.exits import Exit

Command = TypeVar("Command", bound=Callable[..., Any])

_POSITIVE = click.IntRange(min=1)

#: Of a client that measures: it neither spaces its requests nor sends them again.
_OWN_DEFAULTS: Final = {"pacing": "0s", "retries": "0", "timeout": "1m"}


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_load_options = _options(
    click.option("--clients", type=_POSITIVE, default=10, show_default=True, help="Conversations at once."),
    click.option("--messages", type=_POSITIVE, default=10, show_default=True, help="Messages of each client."),
    click.option("--sweep", callback=counts, metavar="N,N,…", help="Run these numbers of clients one after the other."),
    click.option(
        "--request-rate",
        type=Number(min=0, min_open=True),
        metavar="R",
        help="Open loop: requests per second, each in a conversation of its own; inf: as fast as they go.",
    ),
    click.option(
        "--burstiness",
        type=Number(min=0.01),
        default=1.0,
        show_default=True,
        help="Open loop: 1 is Poisson, less comes in bursts, more comes evenly.",
    ),
    click.option(
        "--duration",
        callback=some_seconds,
        metavar="TIME",
        help="Send no more after this time. [default: 30s in an open loop]",
    ),
    click.option(
        "--ramp-up",
        callback=seconds,
        metavar="TIME",
        default="0s",
        show_default=True,
        help="Let the load grow over this time.",
    ),
    click.option(
        "--max-concurrency",
        type=_POSITIVE,
        default=1000,
        show_default=True,
        help="Open loop: at most so many in flight.",
    ),
    click.option("--num-warmups", type=click.IntRange(min=0), default=1, show_default=True, help="Not counted."),
    click.option(
        "--settle",
        callback=seconds,
        metavar="TIME",
        default="500ms",
        show_default=True,
        help="Then listen for what comes late or twice.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Open loop: makes the schedule repeatable."),
    click.option("--connections", type=_POSITIVE, default=4, show_default=True, help="MQTT connections to share."),
    click.option(
        "--stream/--no-stream",
        default=True,
        show_default=True,
        help="Ask for streams, and measure the first token and what follows it there.",
    ),
    click.option(
        "--prompt", "prompts", multiple=True, metavar="TEXT", help="What to say; {client} and {message} vary."
    ),
)

_output_options = _options(
    click.option("--json", "as_json", is_flag=True, help="Print figures as JSON instead of tables."),
    click.option("--save-result", is_flag=True, help="Write the figures as JSON into a file, too."),
    click.option(
        "--result-filename",
        callback=new_file(),
        metavar="FILE",
        help="That file. [default: inferbus-stress-TIME.json]",
    ),
    click.option("--plot", "plot_file", callback=new_file(*ENDINGS), metavar="FILE.png", help="Draw it."),
)

_objective_options = _options(
    click.option(
        "--max-p95", callback=seconds, metavar="TIME", help="Objective: 95 % of the answers within this time."
    ),
    click.option(
        "--max-p99", callback=seconds, metavar="TIME", help="Objective: 99 % of the answers within this time."
    ),
    click.option("--max-first-token", callback=seconds, metavar="TIME", help="Objective: the first token's p95."),
    click.option("--max-failed", callback=share, metavar="PERCENT", help="Objective: at most so many unanswered."),
    click.option("--min-throughput", type=Number(min=0), metavar="R", help="Objective: requests per second."),
    click.option(
        "--goodput",
        callback=objectives,
        multiple=True,
        metavar="NAME:TIME",
        help="Count the answers in time: ttft (first token), tpot (each further token) or e2el (all of it), as in "
        "`vllm bench serve`, where a number without a unit means milliseconds. Repeatable.",
    ),
)


@click.command(short_help="Put a worker under load, and measure.")
@_load_options
@_output_options
@_objective_options
@sampling_options
@client_options(skip=("session",), defaults=_OWN_DEFAULTS)
@click.pass_context
def stress(
    context: click.Context,
    /,
    config: Path | None,
    *,
    connections: int,
    sweep: tuple[int, ...] | None,
    as_json: bool,
    save_result: bool,
    result_filename: Path | None,
    plot_file: Path | None,
    **flags: Any,
) -> int:
    """Put a worker under load, account for every request, and measure.

    A worker limits each session to 10 requests in 60 s unless it was told otherwise; more messages per client are
    then refused, and the table says so.
    """
    refuse(context, {**flags, "sweep": sweep})
    if plot_file is not None:
        require_matplotlib()
    if save_result and result_filename is None:
        result_filename = Path(time.strftime("inferbus-stress-%Y%m%d-%H%M%S.json"))
    plans = _plans(flags, sweep)
    settings = load_settings(flags, config, **_OWN_DEFAULTS)
    with ProgressBar() as progress:
        at_once = max(plan.max_concurrency if plan.is_open else plan.clients for plan in plans)
        session = StressSession(settings, min(connections, at_once), progress)
        lost = _run(session, plans)
    results = session.results
    _show(results, sweep=sweep is not None, as_json=as_json)
    if result_filename is not None:
        _save(results, result_filename)
    if plot_file is not None and results:
        plot(results, _objectives(flags), plot_file)
    if lost is not None:
        raise lost
    if any(result.lost for result in results) and not any(result.answered for result in results):
        click.echo("inferbus: nobody has answered; `inferbus doctor` finds out why", err=True)
    return Exit.INTERRUPTED if session.interrupted else _judge(results, _objectives(flags))


def _run(session: StressSession, plans: Sequence[Plan]) -> BrokerError | None:
    """Run it; a broker that goes away half-way is reported after what was measured."""
    try:
        session.run(plans)
    except BrokerError as error:
        if not session.results:
            raise
        return error
    return None


def _plans(flags: dict[str, Any], sweep: tuple[int, ...] | None) -> list[Plan]:
    names = ("clients", "messages", "request_rate", "burstiness", "duration", "ramp_up", "max_concurrency")
    more = ("num_warmups", "settle", "seed", "stream", "goodput")
    plan = Plan(**{name: flags[name] for name in (*names, *more)}, options=ask_options(flags))
    if flags["prompts"]:
        plan = replace(plan, prompts=flags["prompts"])
    if sweep is None:
        return [plan]
    return [replace(plan, clients=clients) for clients in sorted(set(sweep))]


def _objectives(flags: dict[str, Any]) -> Objectives:
    names = ("max_p95", "max_p99", "max_first_token", "max_failed", "min_throughput")
    return Objectives(**{name: flags[name] for name in names})


def _show(results: Sequence[Result], *, sweep: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_as_json(results), allow_nan=False))
        return
    console = Console(highlight=False)
    for result in results:
        print_result(console, result)
        console.print()
    if sweep:
        print_sweep(console, results, judge(results))
    if results:
        print_about(console, results[0].plan)


def _as_json(results: Sequence[Result]) -> dict[str, Any]:
    figures: dict[str, Any] = {"levels": [result.as_dict() for result in results]}
    if results:
        figures["run"] = about(results[0].plan)
    if len(results) > 1:
        verdict = judge(results)
        figures["verdict"] = {"kind": verdict.kind, "text": verdict.text}
    return figures


def _save(results: Sequence[Result], file: Path) -> None:
    try:
        file.write_text(json.dumps(_as_json(results), indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise SettingsError(f"cannot write {file}: {error.strerror}") from None
    click.echo(f"The result is in {file}.", err=True)


def _judge(results: Sequence[Result], objectives: Objectives) -> Exit:
    missed = [sentence for result in results for sentence in objectives.missed(result)]
    for sentence in missed:
        click.echo(f"objective missed: {sentence}", err=True)
    if missed:
        return Exit.OBJECTIVE_MISSED
    return Exit.OK if any(result.answered for result in results) else Exit.FAILED
