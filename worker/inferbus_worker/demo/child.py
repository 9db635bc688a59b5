"""A program of ours that the demo runs: a child process that cannot outlive it, with a log of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from inferbus_client.errors import InferbusError

_TAIL: Final = 25
_STOP_TIMEOUT: Final = 6.0


class DemoError(InferbusError):
    """The demo cannot go on; the text says why and shows the end of the log."""


class Child:
    """Runs from when it is made until `stop`.

    Args:
        name: what messages call it.
        arguments: of `inferbus`.
        log: the file of its output.
    """

    def __init__(self, name: str, arguments: Sequence[str], log: Path) -> None:
        self._name = name
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "inferbus_worker.demo.lifeline", *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                # Ctrl-C goes to the whole foreground group: in a chat it stops an answer, not the worker.
                process_group=0,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Whether it still runs.

        Raises:
            DemoError: it has ended.
        """
        if self._process.poll() is not None:
            raise DemoError(f"the {self._name} ended with status {self._process.returncode}. {self.end_of_log()}")

    def end_of_log(self) -> str:
        """The last lines of its log, and where it is."""
        with self.log.open(errors="replace") as log:
            tail = "".join(deque(log, _TAIL))
        return f"The end of {self.log}:\n{tail}"

    def stop(self) -> None:
        """Ask, then insist. A Ctrl-C meanwhile insists at once; whatever it has started follows its end."""
        try:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(_STOP_TIMEOUT)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
