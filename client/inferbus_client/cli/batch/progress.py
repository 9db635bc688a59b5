"""How far a batch is: a bar at a terminal, a line now and then anywhere else; both on standard error."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from inferbus_client.cli.streams import complain
from inferbus_client.cli.terminal import is_dumb
from inferbus_client.fleet.columns import number
from inferbus_client.shown import shown_in_line

#: Seconds over which the rate is reckoned, and between two lines.
_WINDOW: Final = 30.0
_EVERY: Final = 10.0
_MINUTE: Final = 60
_HOUR: Final = 3600


@dataclass
class Tally:
    """What has become of the requests so far.

    Attributes:
        total: in the file.
        before: answered by earlier runs.
    """

    total: int
    before: int
    answered: int = 0
    failed: int = 0
    clock: Callable[[], float] = time.monotonic
    _marks: deque[tuple[float, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._began = self.clock()
        self._marks.append((self._began, 0))

    @property
    def ended(self) -> int:
        return self.before + self.answered + self.failed

    @property
    def left(self) -> int:
        return self.total - self.ended

    def words(self) -> str:
        """Rate and expected time, as far as they can be known."""
        now, done = self.clock(), self.answered + self.failed
        while len(self._marks) > 1 and now - self._marks[1][0] > _WINDOW:
            self._marks.popleft()
        since, before = self._marks[0]
        if now - self._marks[-1][0] >= 1:
            self._marks.append((now, done))
        rate = (done - before) / max(now - since, 0.001)
        failed = f"{self.failed} failed, " if self.failed else ""
        return failed + (f"{number(rate)}/s, {_duration(self.left / rate)} left" if rate else "waiting")

    def summary(self) -> str:
        """How it went, once it has ended."""
        seconds = max(self.clock() - self._began, 0.001)
        rate = number((self.answered + self.failed) / seconds)
        before = f" ({self.before} before)" if self.before else ""
        left = f", {self.left} left" if self.left else ""
        answered = f"{self.before + self.answered} of {self.total} answered{before}"
        return f"{answered}, {self.failed} failed{left}; {_duration(seconds)}, {rate}/s"


class Progress:
    """A context manager; `show` is called every now and then."""

    def __init__(self, tally: Tally) -> None:
        console = Console(stderr=True)
        self._tally = tally
        self._has_bar = console.is_terminal and not is_dumb()
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
        self._bar = Bar(*columns, console=console, transient=True, disable=not self._has_bar)
        self._task = self._bar.add_task("", total=tally.total, completed=tally.before)
        self._said_at = tally.clock()

    def show(self, waiting: str) -> None:
        """Show where it stands, and what it waits for if that keeps it from going on."""
        tally = self._tally
        words = shown_in_line(waiting or tally.words())
        if self._has_bar:
            self._bar.update(self._task, completed=tally.ended, description=words)
        elif tally.clock() - self._said_at >= _EVERY:
            self._said_at = tally.clock()
            complain(f"{tally.ended} of {tally.total}: {words}")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()


def _duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:.0f} s"
    return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"
