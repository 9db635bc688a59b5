"""The command line of `inferbus stress`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from inferbus_client.cli.connection import client_options, load_settings
from inferbus_client.cli.sampling import ask_options, sampling_options
from inferbus_client.cli.stress import output
from inferbus_client.cli.stress.find import first_step, steps
from inferbus_client.cli.stress.knee import Search
from inferbus_client.cli.stress.objectives import Objectives
from inferbus_client.cli.stress.parameters import Number, counts, new_file, objectives, seconds, share, some_seconds
from inferbus_client.cli.stress.plan import Plan
from inferbus_client.cli.stress.plot import ENDINGS, plot, require_matplotlib
from inferbus_client.cli.stress.refusals import refuse
from inferbus_client.cli.stress.report import ProgressBar
from inferbus_client.cli.stress.result import Result
from inferbus_client.cli.stress.session import StressSession
from inferbus_client.errors import BrokerError
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
        "--find-concurrency",
        is_flag=True,
        help="Closed loops of 1, 2, 4, … at once, 5s each (or --duration, --messages), until that brings no more; then "
        "the number that is worth it.",
    ),
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
        help="Open loop, or with --find-concurrency: at most so many in flight.",
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
    find_concurrency: bool,
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
    refuse(context, {**flags, "sweep": sweep, "find_concurrency": find_concurrency})
    if plot_file is not None:
        require_matplotlib()
    if save_result and result_filename is None:
        result_filename = Path(time.strftime("inferbus-stress-%Y%m%d-%H%M%S.json"))
    settings, plans = load_settings(flags, config, **_OWN_DEFAULTS), _plans(flags, sweep)
    search = Search(flags["max_concurrency"]) if find_concurrency else None
    at_once = max(plan.max_concurrency if plan.is_open or search else plan.clients for plan in plans)
    with ProgressBar() as progress:
        session = StressSession(settings, min(connections, at_once), progress)
        lost = _run(session, plans if search is None else _steps(context, search, plans[0], session.results))
    results, found = session.results, None
    if search is not None:
        # A step that was broken off tells nothing.
        found = search.recommend(results[: -1 if session.interrupted else None])
        results = sorted(results, key=lambda result: result.plan.clients)
    if as_json:
        click.echo(json.dumps(output.as_json(results, found), allow_nan=False))
    else:
        output.show(results, found, sweep=sweep is not None)
    if result_filename is not None:
        output.save(results, found, result_filename)
    if plot_file is not None and results:
        plot(results, _objectives(flags), plot_file)
    if lost is not None:
        raise lost
    if any(result.lost for result in results) and not any(result.answered for result in results):
        click.echo("inferbus: nobody has answered; `inferbus doctor` finds out why", err=True)
    if session.interrupted:
        return Exit.INTERRUPTED
    has_failed = found is not None and found.concurrency is None
    return Exit.FAILED if has_failed else _judge(results, _objectives(flags))


def _steps(context: click.Context, search: Search, plan: Plan, results: Sequence[Result]) -> Iterator[Plan]:
    has_messages = context.get_parameter_source("messages") is not ParameterSource.DEFAULT
    return steps(search, first_step(plan, has_messages=has_messages), results)


def _run(session: StressSession, plans: Iterable[Plan]) -> BrokerError | None:
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


def _judge(results: Sequence[Result], objectives: Objectives) -> Exit:
    missed = [sentence for result in results for sentence in objectives.missed(result)]
    for sentence in missed:
        click.echo(f"objective missed: {sentence}", err=True)
    if missed:
        return Exit.OBJECTIVE_MISSED
    return Exit.OK if any(result.answered for result in results) else Exit.FAILED
