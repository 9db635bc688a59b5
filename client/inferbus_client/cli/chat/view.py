"""How a chat looks: plain text into a pipe, or Markdown at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from inferbus_client.cli.chat.blocks import split_finished
from inferbus_client.cli.chat.echo import no_echo
from inferbus_client.cli.chat.markdown import ShownMarkdown
from inferbus_client.cli.status_line import StatusLine
from inferbus_client.cli.terminal import anew, in_words, say
from inferbus_client.errors import InferbusError
from inferbus_client.exchange.answer import Answer, Restarted
from inferbus_client.shown import shown
from inferbus_client.units import counted

_REFRESHES: Final = 12

#: What an answer waits for now.
Words = Callable[[], str]


class Shown(Protocol):
    """One answer on its way to the screen."""

    def add(self, text: str) -> None:
        """More of the answer."""

    def restart(self, restarted: Restarted) -> None:
        """What came so far is void."""

    def end(self, answer: Answer) -> None:
        """That was the whole answer."""

    def broke_off(self, how: str) -> None:
        """No more comes, and the answer is not whole."""


class View(Protocol):
    """What a chat shows.

    Attributes:
        takes_back: whether whoever reads it sees that an answer begins anew.
    """

    @property
    def takes_back(self) -> bool: ...

    def welcome(self, project: str, broker: str, session: str, serving: str) -> None: ...
    def note(self, text: str) -> None: ...
    def failed(self, error: InferbusError) -> None: ...
    def clear(self) -> None: ...
    def answering(self, words: Words) -> AbstractContextManager[Shown]: ...


class PlainView:
    """Answers on standard output, everything else on standard error."""

    @property
    def takes_back(self) -> bool:
        return sys.stdout.isatty()

    def welcome(self, project: str, broker: str, session: str, serving: str) -> None:
        self.note(f"inferbus: {project} at {broker}, session {session}. /help lists the commands, Ctrl-D leaves.")
        if serving:
            self.note(f"inferbus: {serving}")

    def note(self, text: str) -> None:
        sys.stderr.write(f"{shown(text)}\n")

    def failed(self, error: InferbusError) -> None:
        self.note(f"inferbus: {in_words(error)}")

    def clear(self) -> None:
        """A pipe has no screen."""

    @contextmanager
    def answering(self, words: Words) -> Iterator[Shown]:
        with StatusLine(words) as line:
            yield _PlainAnswer(line)


class _PlainAnswer:
    def __init__(self, line: StatusLine) -> None:
        self._line = line
        self._begun = False

    def add(self, text: str) -> None:
        self._line.clear()
        self._begun = True
        say(text)

    def restart(self, restarted: Restarted) -> None:
        say(f"\n{anew(restarted)}\n")

    def end(self, answer: Answer) -> None:
        say("" if answer.text.endswith("\n") else "\n")

    def broke_off(self, how: str) -> None:
        self._line.clear()
        if self._begun:
            say("\n")
        sys.stderr.write(f"({how})\n")


class TerminalView:
    """Answers rendered as Markdown while they come; what they wait for until then."""

    takes_back = True

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)

    def welcome(self, project: str, broker: str, session: str, serving: str) -> None:
        self._console.print(Text.assemble(("inferbus", "bold"), f"  {project} at {broker}"), soft_wrap=True)
        if serving:
            self._console.print(Text(shown(serving)), soft_wrap=True)
        self.note(f"session {session}\n/help lists the commands, Ctrl-D leaves")

    def note(self, text: str) -> None:
        self._console.print(Text(shown(text), style="dim"))

    def failed(self, error: InferbusError) -> None:
        self._console.print(Text(in_words(error), style="red"))

    def clear(self) -> None:
        self._console.clear()

    @contextmanager
    def answering(self, words: Words) -> Iterator[Shown]:
        live = Live(console=self._console, refresh_per_second=_REFRESHES, transient=True)
        shown = _MarkdownAnswer(self._console, live, words)
        with no_echo(), live:
            try:
                yield shown
            finally:
                shown.settle()


class _MarkdownAnswer:
    """Blocks that are finished are printed for good; only the last one is drawn again and again.

    A terminal cannot redraw what has scrolled away, so an answer longer than the screen must not be one live picture.
    """

    def __init__(self, console: Console, live: Live, words: Words) -> None:
        self._console = console
        self._live = live
        self._rest = ""
        self._live.update(_Waits(words))

    def add(self, text: str) -> None:
        finished, self._rest = split_finished(self._rest + text)
        if finished.strip():
            self._live.update(Text(""), refresh=True)
            self._console.print(ShownMarkdown(finished))
            self._console.print()
        self._live.update(Group(ShownMarkdown(self._rest)) if self._rest.strip() else Spinner("dots"))

    def restart(self, restarted: Restarted) -> None:
        self.settle()
        self._console.print(Text(anew(restarted), style="dim"))
        self._live.update(Spinner("dots"))

    def end(self, answer: Answer) -> None:
        self.settle()
        if answer.finish_reason == "length":
            self._mark("cut at the longest answer allowed")
        if answer.lost:
            self._mark(f"lost on the way: {counted(answer.lost, 'message')} of the stream")

    def broke_off(self, how: str) -> None:
        self.settle()
        self._mark(how)

    def settle(self) -> None:
        """Print for good what is still live."""
        rest, self._rest = self._rest, ""
        self._live.update(Text(""), refresh=True)
        if rest.strip():
            self._console.print(ShownMarkdown(rest))

    def _mark(self, text: str) -> None:
        self._console.print(Text(f"({text})", style="dim"))


class _Waits:
    """A spinner beside words that are asked for anew with each picture."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._spinner = Spinner("dots")

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        self._spinner.update(text=Text(self._words(), style="dim"))
        yield self._spinner
