"""How a chat looks: plain text into a pipe, or Markdown at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from inferbus_client.answer import Answer
from inferbus_client.cli.chat.blocks import split_finished
from inferbus_client.cli.chat.echo import no_echo
from inferbus_client.cli.chat.markdown import ShownMarkdown
from inferbus_client.cli.terminal import in_words, say
from inferbus_client.errors import InferbusError
from inferbus_client.shown import shown
from inferbus_client.wire import Accepted

_REFRESHES: Final = 12


class Shown(Protocol):
    """One answer on its way to the screen."""

    def accepted(self, accepted: Accepted) -> None:
        """The worker has it; say how long it will take."""

    def add(self, text: str) -> None:
        """More of the answer."""

    def end(self, answer: Answer) -> None:
        """That was the whole answer."""


class View(Protocol):
    """What a chat shows."""

    def welcome(self, project: str, broker: str, session: str) -> None: ...
    def note(self, text: str) -> None: ...
    def failed(self, error: InferbusError) -> None: ...
    def clear(self) -> None: ...
    def answering(self) -> AbstractContextManager[Shown]: ...


class PlainView:
    """Answers on standard output, everything else on standard error."""

    def welcome(self, project: str, broker: str, session: str) -> None:
        self.note(f"inferbus: {project} at {broker}, session {session}. /help lists the commands, Ctrl-D leaves.")

    def note(self, text: str) -> None:
        sys.stderr.write(f"{shown(text)}\n")

    def failed(self, error: InferbusError) -> None:
        self.note(f"inferbus: {in_words(error)}")

    def clear(self) -> None:
        """A pipe has no screen."""

    @contextmanager
    def answering(self) -> Iterator[Shown]:
        yield _PlainAnswer()


class _PlainAnswer:
    def accepted(self, accepted: Accepted) -> None:
        """Nobody looks on."""

    def add(self, text: str) -> None:
        say(text)

    def end(self, answer: Answer) -> None:
        say("" if answer.text.endswith("\n") else "\n")


class TerminalView:
    """Answers rendered as Markdown while they come; the place in the queue until then."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)

    def welcome(self, project: str, broker: str, session: str) -> None:
        self._console.print(Text.assemble(("inferbus", "bold"), f"  {project} at {broker}"), soft_wrap=True)
        self.note(f"session {session}\n/help lists the commands, Ctrl-D leaves")

    def note(self, text: str) -> None:
        self._console.print(Text(shown(text), style="dim"))

    def failed(self, error: InferbusError) -> None:
        self._console.print(Text(in_words(error), style="red"))

    def clear(self) -> None:
        self._console.clear()

    @contextmanager
    def answering(self) -> Iterator[Shown]:
        live = Live(console=self._console, refresh_per_second=_REFRESHES, transient=True)
        shown = _MarkdownAnswer(self._console, live)
        with no_echo(), live:
            try:
                yield shown
            finally:
                shown.settle()


class _MarkdownAnswer:
    """Blocks that are finished are printed for good; only the last one is drawn again and again.

    A terminal cannot redraw what has scrolled away, so an answer longer than the screen must not be one live picture.
    """

    def __init__(self, console: Console, live: Live) -> None:
        self._console = console
        self._live = live
        self._rest = ""
        self._wait("waiting for the worker")

    def accepted(self, accepted: Accepted) -> None:
        self._wait(_place(accepted))

    def add(self, text: str) -> None:
        finished, self._rest = split_finished(self._rest + text)
        if finished.strip():
            self._live.update(Text(""), refresh=True)
            self._console.print(ShownMarkdown(finished))
            self._console.print()
        self._live.update(_tail(self._rest))

    def end(self, answer: Answer) -> None:
        self.settle()
        if answer.finish_reason == "length":
            self._console.print(Text("(cut at the longest answer allowed)", style="dim"))
        if answer.lost:
            self._console.print(Text(f"({answer.lost} messages of the stream were lost on the way)", style="dim"))

    def settle(self) -> None:
        """Print for good what is still live."""
        rest, self._rest = self._rest, ""
        self._live.update(Text(""), refresh=True)
        if rest.strip():
            self._console.print(ShownMarkdown(rest))

    def _wait(self, text: str) -> None:
        self._live.update(Spinner("dots", Text(text, style="dim")))


def _tail(text: str) -> RenderableType:
    return Group(ShownMarkdown(text)) if text.strip() else Spinner("dots")


def _place(accepted: Accepted) -> str:
    if accepted.queue_position <= 0:
        return "thinking"
    wait = "" if accepted.eta_ms is None else f", about {max(round(accepted.eta_ms / 1000), 1)} s"
    return f"place {accepted.queue_position} in the queue{wait}"
