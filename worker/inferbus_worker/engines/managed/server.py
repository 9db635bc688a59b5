"""One server that the worker started: its process and everything below it, from the start to the last trace."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from inferbus_worker.engines.base import EngineStartError
from inferbus_worker.engines.managed.commands import HOST, Command
from inferbus_worker.engines.managed.output import ServerOutput
from inferbus_worker.engines.vllm.processes import kill, memory_of

if TYPE_CHECKING:
    import psutil

_GUARD: Final = Path(__file__).with_name("guard.py")
#: Of the time to stop, what is kept for SIGKILL and its aftermath.
_KILL_RESERVE: Final = 1.0
#: Ours, the broker's password among it, is no business of a server's.
_OURS: Final = "INFERBUS_"

log = logging.getLogger("inferbus.managed")


def free_port() -> int:
    """A port of the loopback interface that nobody listens at now. Another may take it before it is used."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process below a guard of ours (see `guard`), in a session of its own: no terminal's Ctrl-C reaches it.

    Args:
        command: what to run.
        port: where it is to listen.
        name: the slot's, for the log and for threads.
    """

    def __init__(self, command: Command, port: int, name: str) -> None:
        self._command = command
        self._name = name
        self._guard: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []
        self._family: set[psutil.Process] = set()  # all that were ever seen of it
        self._lock = threading.Lock()  # around the lifeline's end
        self.url = f"http://{HOST}:{port}"
        self.port = port
        self.output = ServerOutput(name)
        self.ended = threading.Event()

    def start(self) -> None:
        """Start it; returns before it answers.

        Raises:
            EngineStartError: the system does not let us, or psutil is missing.
        """
        try:
            import psutil  # noqa: F401, PLC0415 - needed later, when it is too late to say so
        except ImportError:
            raise EngineStartError("Servers can be started with psutil alone: pip install psutil.") from None
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        environment |= {"PYTHONUNBUFFERED": "1"} | dict(self._command.environment)
        try:
            self._guard = subprocess.Popen(  # noqa: S603 - the operator's command, and no shell
                [sys.executable, "-I", "-S", str(_GUARD), *self._command.words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                bufsize=0,
            )
        except (OSError, ValueError) as error:  # no memory, too many processes, a NUL in a word
            raise EngineStartError(f"The server of {self._name} cannot be started: {error}.") from error
        for work, name in ((self._read, "slot-output"), (self._see_the_end, "slot-guard")):
            self._threads.append(threading.Thread(target=work, name=f"{name} {self._name}", daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def is_alive(self) -> bool:
        return self._guard is not None and not self.ended.is_set()

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        code = None if self._guard is None else self._guard.poll()
        if code is None:
            return "it runs"
        number = -code if code < 0 else code - 128
        if number in set(signal.Signals):
            return f"it was ended by {signal.Signals(number).name}"
        return f"it ended with status {code}"

    @property
    def memory_bytes(self) -> int | None:
        """What its processes hold of the host's memory; a GPU's is not seen. None while it does not run."""
        return memory_of(self._look()) if self.is_alive else None

    def ask_to_end(self) -> None:
        """SIGTERM for its process group."""
        guard = self._guard
        with self._lock, contextlib.suppress(OSError, ValueError):  # it is gone; its lifeline is closed
            if guard is not None and guard.stdin is not None:
                guard.stdin.write(b"t")

    def kill(self) -> None:
        """SIGKILL for everything below the guard, soon."""
        guard = self._guard
        with self._lock, contextlib.suppress(OSError):
            if guard is not None and guard.stdin is not None:
                guard.stdin.close()

    def stop(self, timeout: float) -> None:
        """End it and every process that it started, within `timeout` seconds. Safe to call twice, and after its end."""
        if self._guard is None:
            return
        deadline = time.monotonic() + timeout
        self._look()
        self.ask_to_end()
        self.ended.wait(max(0.0, timeout - _KILL_RESERVE))
        self.kill()
        self.ended.wait(max(0.0, deadline - time.monotonic() - _KILL_RESERVE / 2))
        # What the guard may not have reached: all of it where it was killed itself, on macOS what had left the group.
        kill(self._family, max(deadline, time.monotonic() + _KILL_RESERVE / 2))
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if not self.ended.is_set():
            log.warning("%s: its server cannot be ended", self._name)

    def _look(self) -> set[psutil.Process]:
        """The guard and everything below it; also what was seen there before, should the guard have been killed."""
        import psutil  # noqa: PLC0415

        family = {process for process in self._family if process.is_running()}
        if self._guard is not None and self._guard.poll() is None:  # else its number may be another's
            with contextlib.suppress(psutil.NoSuchProcess):
                guard = psutil.Process(self._guard.pid)
                family |= {guard, *guard.children(recursive=True)}
        self._family = family
        return family

    # From here on: threads of its own.

    def _read(self) -> None:
        if self._guard is not None and self._guard.stdout is not None:
            self.output.read(self._guard.stdout)

    def _see_the_end(self) -> None:
        """The end of the output would not do: what has lost its guard may hold it open."""
        if self._guard is None:
            return
        if self._guard.wait() < 0:
            kill(self._family, time.monotonic() + _KILL_RESERVE)
        self._threads[0].join(_KILL_RESERVE)  # its last words are worth waiting for
        self.kill()
        self.ended.set()
