"""The processes that vLLM runs the model in: which they are, and how they end for certain."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_LOOK_INTERVAL = 0.02


def engine_processes(others: Collection[psutil.Process] = ()) -> set[psutil.Process]:
    """What vLLM started through multiprocessing (nothing else in the worker does), and what that started in turn.

    Args:
        others: those that are none of the caller's.
    """
    import psutil  # noqa: PLC0415 - comes with vLLM

    processes: set[psutil.Process] = set()
    for child in multiprocessing.active_children():
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(child.pid)
            processes |= {process, *process.children(recursive=True)}
    return processes - set(others)


def kill(processes: Collection[psutil.Process], deadline: float) -> None:
    """SIGKILL those that still live, and see them gone, until `deadline` on `time.monotonic()`'s clock at most."""
    import psutil  # noqa: PLC0415

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    while any(map(_lives, processes)) and time.monotonic() < deadline:
        time.sleep(_LOOK_INTERVAL)


def memory_of(processes: Collection[psutil.Process]) -> int:
    """What they hold of the host's memory together, in bytes. Pages that they share count once for each."""
    import psutil  # noqa: PLC0415

    held = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            held += process.memory_info().rss
    return held


def _lives(process: psutil.Process) -> bool:
    """Whether it runs; one that ended and waits for its parent to notice does not."""
    import psutil  # noqa: PLC0415

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
