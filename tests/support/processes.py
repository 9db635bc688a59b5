"""Which processes a run of the tests started, directly or not, and that none of them is left."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

import psutil

from support.waiting import PATIENCE, until

_PR_SET_CHILD_SUBREAPER: Final = 36
#: How many processes guard a server that the worker starts: on Linux a pair.
GUARDS: Final = 2 if sys.platform == "linux" else 1
#: Helpers of Python's multiprocessing, which end with the process that they help and are nobody's orphans.
_HARMLESS: Final = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own, instead of init, so that `descendants` sees them.

    Linux alone has this; elsewhere orphans go unseen.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[psutil.Process]:
    """Every process that this one started, directly or not, and that still runs."""
    found = psutil.Process().children(recursive=True)
    return [process for process in found if is_running(process) and not _is_harmless(process)]


def family(pid: int) -> list[psutil.Process]:
    """A process and everything below it."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def assert_gone(processes: list[psutil.Process], timeout: float = PATIENCE) -> None:
    """None of these runs any more, at most `timeout` seconds from now."""
    try:
        until(lambda: not any(is_running(process) for process in processes), timeout)
    except AssertionError:
        raise AssertionError(f"still running:\n{describe(processes)}") from None


def is_running(process: psutil.Process) -> bool:
    """Whether it still does anything: a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def describe(processes: list[psutil.Process]) -> str:
    return "\n".join(f"{process.pid} {_command(process)}" for process in processes if is_running(process))


def _is_harmless(process: psutil.Process) -> bool:
    return any(name in _command(process) for name in _HARMLESS)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return "(gone)"
