"""Says on standard error what is going on: a line that lives on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.status import Status

_PLAIN_INTERVAL: Final = 10.0


class Step:
    """One step that takes time: a context manager. Call `tick` while waiting, so that the seconds are seen to pass."""

    def __init__(self, console: Console, text: str) -> None:
        self._console = console
        self._text = text
        self._began = time.monotonic()
        self._next_line = self._began + _PLAIN_INTERVAL
        self._status: Status | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self._began

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status(f"{self._text} …")
            self._status.start()
        else:
            self._console.print(f"{self._text} …")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._status is not None:
            self._status.stop()
        if kind is None:
            self._console.print(f"{self._text}: done in {self.seconds:.1f} s")

    def change(self, text: str) -> None:
        """Go on under another name."""
        if text == self._text:
            return
        self._text = text
        if self._status is None:
            self._console.print(f"{text} …")

    def tick(self) -> None:
        """Show that time passes."""
        if self._status is not None:
            self._status.update(f"{self._text} … {self.seconds:.0f} s")
        elif time.monotonic() >= self._next_line:
            self._next_line += _PLAIN_INTERVAL
            self._console.print(f"  still at it after {self.seconds:.0f} s")


class Progress:
    """The steps of one program."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True) if console is None else console

    def step(self, text: str) -> Step:
        return Step(self._console, text)

    def say(self, text: str) -> None:
        """A line of its own, as it is."""
        self._console.print(text, markup=False)
