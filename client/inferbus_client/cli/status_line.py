"""One line on standard error that says what we wait for, and is gone when that has come."""

from __future__ import annotations

import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final, Self

from inferbus_client.cli.terminal import is_dumb
from inferbus_client.client import Client
from inferbus_client.settings.client import ClientSettings
from inferbus_client.shown import shown_in_line

#: What is over sooner is not worth a flicker.
_PATIENCE: Final = 0.5
_REFRESH: Final = 0.25
_ERASE: Final = "\r\x1b[K"
#: What only counts down.
_NUMBERS: Final = re.compile(r"\d+")


class StatusLine:
    """A context manager; a thread of its own asks `words` what to show. Nothing is shown where nobody looks on.

    A dumb terminal cannot take a line back: there every other thing that we wait for gets a line of its own.
    """

    def __init__(self, words: Callable[[], str]) -> None:
        self._words = words
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._shown = ""
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._thread = threading.Thread(target=self._run, name="status-line", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the line back, for good."""
        with self._lock:
            self._ended.set()
            if self._shown and not is_dumb():
                self._write(_ERASE)
            self._shown = ""

    def _run(self) -> None:
        pause = _PATIENCE
        while not self._ended.wait(pause):
            pause = _REFRESH
            text = shown_in_line(self._words())
            with self._lock:
                if not self._ended.is_set():
                    self._show(text)

    def _show(self, text: str) -> None:
        if is_dumb():
            if _NUMBERS.sub("", text) != _NUMBERS.sub("", self._shown):
                self._write(f"{text}\n")
        elif text != self._shown:
            self._write(_ERASE + text[: shutil.get_terminal_size().columns - 1])
        self._shown = text

    def _write(self, text: str) -> None:
        with suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()


@contextmanager
def connected(settings: ClientSettings) -> Iterator[Client]:
    """A client, connected; a person sees where to while that takes its time.

    Raises:
        BrokerError: as `Client.connect` says.
    """
    client = Client(settings)
    with StatusLine(lambda: f"connecting to {settings.broker}"):
        client.connect()
    try:
        yield client
    finally:
        client.close()
