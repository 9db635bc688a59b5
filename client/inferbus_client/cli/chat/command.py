"""The command line of `inferbus chat`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from inferbus_client.cli.chat.input import Lines, TerminalLines, piped_lines
from inferbus_client.cli.chat.loop import ChatLoop
from inferbus_client.cli.chat.view import PlainView, TerminalView, View
from inferbus_client.cli.connection import client_options, load_settings
from inferbus_client.cli.sampling import ask_options, sampling_options
from inferbus_client.cli.status_line import connected
from inferbus_client.cli.streams import require_input
from inferbus_client.cli.terminal import is_dumb
from inferbus_client.exits import Exit


@click.command()
@click.option(
    "-q", "--question", "questions", multiple=True, metavar="TEXT", help="Ask this once and leave; repeatable."
)
@click.option(
    "--qos",
    metavar="0|1|2",
    help="Quality of service of requests; the other verbs' -q is the question here. [default: 1]",
)
@click.option("--plain", is_flag=True, help="No Markdown, no colour; as when the output is no terminal.")
@sampling_options
@client_options(skip={"qos"}, defaults={"pacing": "0s"})
def chat(questions: tuple[str, ...], config: Path | None, *, plain: bool, **flags: Any) -> int:
    """Talk to a model. Lines come from the terminal, from a pipe, or from -q."""
    if not all(question.strip() for question in questions):
        raise click.UsageError("there is nothing to ask: the text is empty.")
    settings, options = load_settings(flags, config, pacing=0.0), ask_options(flags)
    interactive = not questions and sys.stdin.isatty()
    view: View = PlainView() if plain or not sys.stdout.isatty() or is_dumb() else TerminalView()
    with connected(settings) as client:
        loop = ChatLoop(client, view, options)
        lines = _lines(questions, interactive=interactive)
        if interactive:
            loop.welcome()
            return loop.talk(lines)
        return Exit.OK if loop.answer_all(lines) else loop.last_status


def _lines(questions: tuple[str, ...], *, interactive: bool) -> Lines:
    if questions:
        return iter(questions)
    require_input()
    return TerminalLines() if interactive else piped_lines(sys.stdin)
