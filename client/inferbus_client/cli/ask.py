"""`inferbus ask`: one question, one answer, for scripts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from inferbus_client.cli.connection import client_options, load_settings
from inferbus_client.cli.lookout import Lookout
from inferbus_client.cli.sampling import ask_options, sampling_options
from inferbus_client.cli.status_line import StatusLine, connected
from inferbus_client.cli.streams import read_input
from inferbus_client.cli.terminal import say
from inferbus_client.cli.waiting import Waiting
from inferbus_client.client import Client
from inferbus_client.errors import InferbusError, RequestFailedError
from inferbus_client.exchange.answer import Answer
from inferbus_client.exchange.options import AskOptions
from inferbus_client.exits import Exit, exit_of


@click.command(short_help="Ask one thing and print the answer.")
@click.argument("text", nargs=-1, required=True, metavar="TEXT")
@click.option("--json", "as_json", is_flag=True, help="Print the reply's fields instead of its text.")
@click.option(
    "--stream/--no-stream",
    default=None,
    help="Print the answer as it comes (with --json: one line per delta). [default: at a terminal, without --json]",
)
@sampling_options
@client_options()
def ask(text: tuple[str, ...], config: Path | None, *, as_json: bool, stream: bool | None, **flags: Any) -> int:
    """Ask TEXT (`-`: what standard input says) and print the answer."""
    if len(text) > 1:
        raise click.UsageError(f"the text must be one word to the shell: put it in quotes, {' '.join(text)!r}.")
    message = read_input() if text == ("-",) else text[0]
    if not message.strip():
        raise click.UsageError("there is nothing to ask: the text is empty.")
    settings = load_settings(flags, config)
    options = ask_options(flags)
    if stream is None:
        stream = sys.stdout.isatty() and not as_json
    try:
        with connected(settings) as client:
            answer = _ask(client, message, options, stream=stream, as_json=as_json)
    except InferbusError as error:
        if not as_json:
            raise
        click.echo(json.dumps({"error": _error_fields(error)}))
        return exit_of(error)
    if as_json:
        click.echo(json.dumps(answer.as_dict()))
    elif not stream:
        say(f"{answer.text}\n")
    return Exit.OK


def _ask(client: Client, message: str, options: AskOptions, *, stream: bool, as_json: bool) -> Answer:
    waiting = Waiting(client, Lookout(client))
    options = {**options, **waiting.options()}
    with StatusLine(waiting.words) as line:
        return _streamed(client, message, options, line, as_json=as_json) if stream else client.ask(message, **options)


def _streamed(client: Client, message: str, options: AskOptions, line: StatusLine, *, as_json: bool) -> Answer:
    begun = False
    try:
        with client.stream(message, **options) as deltas:
            for delta in deltas:
                line.clear()
                begun = True
                say(json.dumps({"delta": delta.text}) + "\n" if as_json else delta.text)
            answer = deltas.result()
    except (InferbusError, KeyboardInterrupt):
        # For a person what went wrong stands on a line of its own; a program gets what the model said and no more.
        if begun and not as_json and sys.stdout.isatty():
            say("\n")
        raise
    if not as_json:
        say("\n")
    return answer


def _error_fields(error: InferbusError) -> dict[str, Any]:
    if not isinstance(error, RequestFailedError):
        return {"type": type(error).__name__, "message": str(error)}
    return {
        "type": type(error).__name__,
        "message": str(error),
        "code": error.code,
        "status": error.status,
        "retryable": error.retryable,
        "retryAfterMs": error.failure.retry_after_ms,
    }
