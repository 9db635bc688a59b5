"""Where the lines come from: a person at a terminal, or a pipe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from inferbus_client.cli.chat.slash import NAMES
from inferbus_client.cli.streams import input_is_no_text

Lines = Iterator[str]


class TerminalLines:
    """Lines with editing, history across chats, and completion of commands. Alt-Enter begins a new line.

    Iterating raises `KeyboardInterrupt` for Ctrl-C and ends at Ctrl-D.
    """

    def __init__(self) -> None:
        self._prompt: PromptSession[str] = PromptSession(
            history=_history(),
            completer=WordCompleter([f"/{name}" for name in NAMES], sentence=True),
            complete_while_typing=False,
            key_bindings=_keys(),
            prompt_continuation="  ",
        )

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            return self._prompt.prompt("> ")
        except EOFError:
            raise StopIteration from None


def piped_lines(stream: TextIO) -> Iterator[str]:
    """One message per line.

    Raises:
        click.UsageError: they are no text.
    """
    try:
        for line in stream:
            yield line.rstrip("\r\n")
    except UnicodeDecodeError:
        raise input_is_no_text() from None


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _history() -> History:
    """The person's earlier lines, readable by nobody else; forgotten where the folder cannot be written."""
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        file = state / "inferbus" / "chat-history"
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
        with file.open("r+b"):
            return _KeptHistory(str(file))
    except (OSError, RuntimeError):  # RuntimeError: nobody knows a home of this user
        return InMemoryHistory()


class _KeptHistory(FileHistory):
    """A full disk costs the history, not the chat."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)
