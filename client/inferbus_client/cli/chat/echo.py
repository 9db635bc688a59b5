"""While an answer is drawn, the terminal does not echo what is typed: a `^C` would wrap the line being drawn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

try:
    import termios
except ImportError:  # Windows, whose console does not echo Ctrl-C
    termios = None  # type: ignore[assignment]

_LOCAL_FLAGS = 3


@contextmanager
def no_echo() -> Iterator[None]:
    """Switch the echo of standard input off and, however it ends, back to what it was."""
    if termios is None or not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    silent = [*before]
    silent[_LOCAL_FLAGS] = before[_LOCAL_FLAGS] & ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
