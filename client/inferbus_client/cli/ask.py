"""`inferbus ask`: one question, one answer, for scripts."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import click

from inferbus_client.cli.connection import client_options, load_settings
from inferbus_client.cli.conversation import Conversation
from inferbus_client.cli.lookout import Lookout
from inferbus_client.cli.sampling import ask_options, sampling_options
from inferbus_client.cli.status_line import StatusLine, connected
from inferbus_client.cli.streams import read_input
from inferbus_client.cli.terminal import anew, say
from inferbus_client.cli.waiting import Waiting
from inferbus_client.client import Client
from inferbus_client.contract.wire import Delta
from inferbus_client.errors import InferbusError, RequestFailedError
from inferbus_client.exchange.answer import Answer, Restarted
from inferbus_client.exchange.call import Messages
from inferbus_client.exchange.options import AskOptions
from inferbus_client.exchange.rejoining import rejoined
from inferbus_client.exits import Exit, exit_of


class _Question(NamedTuple):
    """A message in its session, or a whole conversation that belongs to none."""

    message: str | None = None
    messages: Messages | None = None


@click.command(short_help="Ask one thing and print the answer.")
@click.argument("text", nargs=-1, metavar="[TEXT]")
@click.option(
    "--messages",
    "conversation",
    metavar="FILE",
    help="Instead of TEXT: a whole conversation, as OpenAI's chat messages in JSON, a list or one a line; -: from "
    "standard input. The worker keeps nothing of it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the reply's fields instead of its text.")
@click.option(
    "--stream/--no-stream",
    default=None,
    help="Print the answer as it comes (with --json: a line for each delta, and where another worker begins anew). "
    "[default: at a terminal, without --json]",
)
@sampling_options
@client_options()
def ask(
    text: tuple[str, ...],
    config: Path | None,
    *,
    conversation: str | None,
    as_json: bool,
    stream: bool | None,
    **flags: Any,
) -> int:
    """Ask TEXT (`-`: what standard input says), or --messages, and print the answer."""
    options = ask_options(flags)
    question = _question(text, conversation, options)
    settings = load_settings(flags, config)
    if stream is None:
        stream = sys.stdout.isatty() and not as_json
    try:
        with connected(settings) as client:
            answer = _ask(client, question, options, stream=stream, as_json=as_json)
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


def _question(text: tuple[str, ...], conversation: str | None, options: AskOptions) -> _Question:
    """What is asked.

    Raises:
        click.UsageError: nothing, two things, or what the worker would refuse.
    """
    if conversation is not None:
        if text:
            raise click.UsageError("--messages stands in the place of TEXT: leave one of them out.")
        read = Conversation.read(conversation)
        read.check(options)
        return _Question(messages=read.messages)
    if not text:
        raise click.UsageError("what is to be asked? Give TEXT, or --messages.")
    if len(text) > 1:
        raise click.UsageError(f"the text must be one word to the shell: put it in quotes, {' '.join(text)!r}.")
    message = read_input() if text == ("-",) else text[0]
    if not message.strip():
        raise click.UsageError("there is nothing to ask: the text is empty.")
    return _Question(message)


def _ask(client: Client, asked: _Question, options: AskOptions, *, stream: bool, as_json: bool) -> Answer:
    waiting = Waiting(client, Lookout(client))
    options = {**options, **waiting.options()}
    with StatusLine(waiting.words) as line:
        if stream:
            return _streamed(client, asked, options, line, as_json=as_json)
        return client.ask(asked.message, messages=asked.messages, **options)


def _streamed(client: Client, asked: _Question, options: AskOptions, line: StatusLine, *, as_json: bool) -> Answer:
    begun = False
    try:
        with client.stream(asked.message, messages=asked.messages, **options) as deltas:
            # A pipe cannot take back what it was given, unless JSON says so.
            parts = deltas if as_json or sys.stdout.isatty() else rejoined(deltas)
            for part in parts:
                line.clear()
                begun = True
                say(_in_json(part) if as_json else _in_text(part))
            answer = deltas.result()
    except (InferbusError, KeyboardInterrupt):
        # For a person what went wrong stands on a line of its own; a program gets what the model said and no more.
        if begun and not as_json and sys.stdout.isatty():
            say("\n")
        raise
    if not as_json:
        say("\n")
    return answer


def _in_json(part: Delta | Restarted) -> str:
    return json.dumps({"restarted": asdict(part)} if isinstance(part, Restarted) else {"delta": part.text}) + "\n"


def _in_text(part: Delta | Restarted) -> str:
    return f"\n{anew(part)}\n" if isinstance(part, Restarted) else part.text


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
