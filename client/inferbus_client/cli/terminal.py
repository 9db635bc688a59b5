"""What goes to a terminal, and what goes into a pipe.

A program gets every character as it is. A terminal would obey some of them, and what comes from the bus is a
stranger's: there they are written out. JSON needs nothing of that, it escapes what is not ASCII.
"""

from __future__ import annotations

import sys

from inferbus_client.errors import RequestFailedError
from inferbus_client.shown import shown, shown_in_line


def say(text: str) -> None:
    """Write an answer, or a part of one, to standard output: as it is into a pipe, shown as text at a terminal."""
    sys.stdout.write(shown(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def in_words(error: Exception) -> str:
    """An error as people read it, wherever it is written; what a worker says of a request keeps to its line."""
    return shown_in_line(str(error)) if isinstance(error, RequestFailedError) else shown(str(error))
