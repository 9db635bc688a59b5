"""What goes to a terminal, and what goes into a pipe.

A program gets every character as it is. A terminal would obey some of them, and what comes from the bus is a
stranger's: there they are written out. JSON needs nothing of that, it escapes what is not ASCII.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Sequence

from inferbus_client.errors import (
    BrokerRefusedError,
    BrokerUnreachableError,
    RequestFailedError,
    RequestTimeoutError,
    SettingsError,
)
from inferbus_client.exchange.answer import Restarted
from inferbus_client.shown import shown, shown_in_line


def is_dumb() -> bool:
    """Whether the terminal says of itself that it can only take one line after the other."""
    return os.environ.get("TERM") in {"", "dumb", "unknown"}


def has_colours() -> bool:
    """Whether standard output is a terminal that may have colours (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and not is_dumb()


def dumb_size() -> tuple[int, int] | tuple[None, None]:
    """Columns and lines of a dumb terminal, which rich takes for 80 by 25; None: rich sees for itself."""
    return shutil.get_terminal_size() if is_dumb() and sys.stdout.isatty() else (None, None)


def say(text: str) -> None:
    """Write an answer, or a part of one, to standard output: as it is into a pipe, shown as text at a terminal."""
    sys.stdout.write(shown(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


class FaultsError(SettingsError):
    """Several things that are wrong, each of which has a line of its own.

    Attributes:
        lines: what they are about, then what each is; each is one line, whatever it quotes.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = tuple(map(shown_in_line, lines))
        super().__init__("\n".join(self.lines))


def anew(restarted: Restarted) -> str:
    """That an answer begins anew, and with whom."""
    return f"({shown_in_line(restarted.worker or 'another worker')} has taken over, and begins anew)"


def in_words(error: Exception) -> str:
    """An error as people read it, wherever it is written, with what to do about it where that is known.

    What a worker says of a request keeps to its line.
    """
    if isinstance(error, RequestFailedError):
        again = f" Try again in {math.ceil(error.retry_after)} s." if error.retry_after else ""
        return shown_in_line(str(error)) + again
    if isinstance(error, RequestTimeoutError) and error.what == "first sign of life":
        return f"{error}. Does a worker serve this project on this broker? `inferbus doctor` finds out."
    if isinstance(error, BrokerUnreachableError | BrokerRefusedError):
        return f"{shown(str(error)).rstrip('.')}. `inferbus doctor` says what to do about it."
    is_in_line = isinstance(error, SettingsError) and not isinstance(error, FaultsError)
    return shown_in_line(str(error)) if is_in_line else shown(str(error))
