"""Commands run in a pseudo-terminal, where they behave as in front of a person."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pexpect

from support.inferbus import PROGRAM, environment

_TIMEOUT = 60


@dataclass(frozen=True)
class Seen:
    """What a terminal got, and how the command ended."""

    status: int | None
    raw: bytes

    @property
    def text(self) -> str:
        return self.raw.decode(errors="replace").replace("\r\n", "\n")


def end(child: Any) -> None:
    """End a command in a terminal, whatever it does, and wait for that however long it takes.

    pexpect's own `close(force=True)` gives SIGKILL a tenth of a second.
    """
    if child.isalive():
        child.kill(signal.SIGKILL)
        child.wait()
    child.close()


def in_terminal(
    *arguments: str, columns: int = 80, program: str = PROGRAM, env: Mapping[str, str] | None = None
) -> Seen:
    """Run a command in a terminal of 24 lines to its end, with these environment variables besides."""
    child = pexpect.spawn(
        program,
        list(arguments),
        dimensions=(24, columns),
        env=environment(**{"TERM": "xterm", **(env or {})}),
        timeout=_TIMEOUT,
    )
    raw = child.read()
    child.close()
    return Seen(child.exitstatus, raw)
