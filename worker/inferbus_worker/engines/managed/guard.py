"""`python guard.py COMMAND …`: a small process between the worker and a server that it starts.

However the worker ends, SIGKILL included, the kernel closes its end of our standard input: then everything that the
server has started ends too. On Linux that is certain. As a subreaper this process becomes the parent of every process
below it that loses its own, so killing its children until there are none left reaches all of them, wherever they went
and whatever group or session they made themselves. And there are two of it, a pair of which either does that when the
other one is killed.
macOS has no subreapers: there the server's process group is killed, and what has left that group outlives a worker that
was killed. (In an orderly stop the worker finds those as well.)

The worker writes one byte to have the server asked to end, and closes the pipe to have it ended. Signals change
nothing here: what a supervisor sends to everybody is for the worker, which lets its requests end first.

Run as a file, by an interpreter without site packages (`-I -S`): it is there in some 20 ms, and stays small.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

#: As shells say it: there is no such program.
NOT_FOUND: Final = 127

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_LIFELINE: Final = 0  # standard input
#: What a terminal or a supervisor sends to everybody.
_NOT_OURS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: Seconds between looks at children that take their time to die.
_LOOK_INTERVAL: Final = 0.02
_MANY: Final = 4096


def guard(command: list[str]) -> int:
    """Run `command` until it ends or has to; returns its exit status, a signal's as 128 and its number.

    On Linux the first of the pair has the second one below it, and that the server. What the second one loses becomes
    the first one's; when the first is gone, the second sees it.
    """
    for number in _NOT_OURS:
        signal.signal(number, signal.SIG_IGN)
    wakes = _woken_by_children()
    control = _process_control()
    _adopt_orphans(control)
    worker = _parent()
    if sys.platform == "linux":
        if second := os.fork():
            return _watch(second, worker, wakes)
        wakes = _woken_by_children()
        _adopt_orphans(control)
        worker += _parent()
    return _watch(_start(command, control), [_LIFELINE, *worker], wakes)


def _adopt_orphans(control: Callable[[int, int], object]) -> None:
    control(_PR_SET_CHILD_SUBREAPER, 1)
    control(_PR_SET_PDEATHSIG, signal.SIGCONT)  # whoever is stopped just then has to see it too


def _watch(child: int, ends: list[int], wakes: int) -> int:
    """Wait for the end of `child`, or of what tells by `ends` that it is over, and leave nothing below this process."""
    status: int | None = None
    while status is None:
        readable, _, _ = select.select([wakes, *ends], [], [])
        if wakes in readable:
            os.read(wakes, _MANY)
        if _LIFELINE in readable and os.read(_LIFELINE, 1):
            readable.remove(_LIFELINE)
            with contextlib.suppress(ProcessLookupError):  # it is not yet, or no more, a group of its own
                os.killpg(child, signal.SIGTERM)
        if any(end in readable for end in ends):
            break
        status, _ = _reap(child)
    killed = _kill_all(child)
    code = os.waitstatus_to_exitcode(killed if status is None else status)
    return code if code >= 0 else 128 - code


def _parent() -> list[int]:
    """What becomes readable when this process's parent ends, where the kernel has that (Linux).

    The pipe alone would do, but for a process that the worker has forked and that did not become another program: that
    one holds the worker's end of it too.
    """
    try:
        return [os.pidfd_open(os.getppid())]
    except (AttributeError, OSError):  # the worker has ended already, and the pipe tells
        return []


def _woken_by_children() -> int:
    """What becomes readable when a child ends."""
    wakes, written = os.pipe()
    os.set_blocking(written, False)
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return wakes


def _process_control() -> Callable[[int, int], object]:
    """Linux's `prctl`; elsewhere nothing."""
    if sys.platform != "linux":
        return lambda _option, _value: None
    prctl = ctypes.CDLL(None).prctl
    return lambda option, value: prctl(option, value, 0, 0, 0)


def _start(command: list[str], control: Callable[[int, int], object]) -> int:
    guard = os.getpid()
    server = os.fork()
    if server:
        with contextlib.suppress(OSError):  # the child does the same, and may have been first
            os.setpgid(server, server)
        return server
    try:
        _become(command, guard, control)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode(errors="replace"))
    finally:
        os._exit(NOT_FOUND)


def _become(command: list[str], guard: int, control: Callable[[int, int], object]) -> NoReturn:
    """In the child: be the server, with nothing of ours but the output."""
    os.setpgid(0, 0)
    control(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(NOT_FOUND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, _LIFELINE)
    for number in (*_NOT_OURS, signal.SIGPIPE, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execvp(command[0], command)  # noqa: S606 - the operator's command, and no shell


def _reap(server: int) -> tuple[int | None, bool]:
    """Take leave of the children that have ended: the server's status, if it is one, and whether any are left."""
    found = None
    try:
        while True:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                return found, True
            if child == server:
                found = status
    except ChildProcessError:
        return found, False


def _kill_all(server: int) -> int:
    """End everything below this process; returns the server's status if it had not ended before.

    Only children are killed, whose numbers nobody else can have before they are reaped. What they leave behind becomes
    a child of ours.
    """
    found, has_children = 0, True
    if sys.platform != "linux":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(server, signal.SIGKILL)
    while has_children:
        for child in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        status, has_children = _reap(server)
        found = found if status is None else status
        if has_children:
            select.select([], [], [], _LOOK_INTERVAL)
    return found


def _children() -> list[int]:
    """The processes whose parent is this one; none where there is no /proc."""
    mine, found = str(os.getpid()), []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold spaces and parentheses of its own.
            _state, parent, *_ = entry.read_text(errors="replace").rpartition(")")[2].split()
            if parent == mine:
                found.append(int(entry.parent.name))
    return found


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1:]))
