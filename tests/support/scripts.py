"""The repository's scripts and shell commands, run as a person at a terminal runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from support.processes import assert_gone, family
from support.waiting import PATIENCE, until

ROOT: Final = Path(__file__).resolve().parents[2]


class Running:
    """A command in a session of its own, as in a terminal of its own: a context manager that ends what is left of it.

    Args:
        command: program and arguments; run in the repository's root.
        env: more environment.
    """

    def __init__(self, command: Sequence[str], env: dict[str, str] | None = None) -> None:
        self._command = command
        self._env = env or {}

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="inferbus-running-")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env={**os.environ, **self._env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        left = family(self.process.pid) if self.process.poll() is None else []
        for process in left:
            with suppress(psutil.NoSuchProcess):  # it was on its way out
                process.kill()
        self.process.wait(PATIENCE)
        assert_gone(left)
        self._folder.cleanup()

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def says(self, text: str, timeout: float = 60.0) -> None:
        """Return when `text` is in its output or on its standard error."""
        until(lambda: text in self.out + self.err or self._ended_without(text), timeout)

    def wait(self, timeout: float) -> int:
        """Its exit status."""
        return self.process.wait(timeout)

    def press_ctrl_c(self) -> None:
        """What a terminal does: SIGINT to the whole foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def _ended_without(self, text: str) -> bool:
        ended = self.process.poll() is not None
        assert not ended or text in self.out + self.err, f"it ended without saying {text!r}: {self.err}"
        return False

    @property
    def _out(self) -> Path:
        return Path(self._folder.name) / "out"

    @property
    def _err(self) -> Path:
        return Path(self._folder.name) / "err"
