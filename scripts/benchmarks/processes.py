"""The processes that are measured: each starts in a `with`, and none outlives it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

_HERE: Final = Path(__file__).resolve().parent
_LOOK: Final = 0.002
_STOP_SECONDS: Final = 15.0
_KILL_SECONDS: Final = 5.0
_LOG_TAIL: Final = 2000


class ProcessFailedError(RuntimeError):
    """A process ended, or did not come up; the text has the end of what it said."""


class Child:
    """A process with all that it starts; it is asked to end, and whatever is left then is killed.

    Args:
        command: program and arguments.
        environment: added to ours, from which the worker's own settings are taken out.
        piped: whether we write its standard input and read its standard output; else it reads nothing, and says what
            it has to say to the log.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        piped: bool = False,
    ) -> None:
        self._command = list(command)
        ours = {name: value for name, value in os.environ.items() if not name.startswith("INFERBUS_")}
        self._environment = ours | {"PYTHONPATH": str(_HERE.parent)} | dict(environment or {})
        self._piped = piped

    def __enter__(self) -> Self:
        self._log = tempfile.NamedTemporaryFile(prefix="inferbus-bench-", suffix=".log")
        self.began = time.perf_counter()
        self.process = psutil.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE if self._piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE if self._piped else self._log,
            stderr=self._log,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        family = self._family()
        if self.process.poll() is None:
            self.process.terminate()
        with suppress(psutil.TimeoutExpired):
            self.process.wait(_STOP_SECONDS)
        family |= self._family()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(list(family), _KILL_SECONDS)
        self._log.close()

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text(errors="replace")

    @property
    def cpu_seconds(self) -> float:
        """Of the process and of all that it has started, those that have ended included."""
        return sum(_cpu_seconds(process, and_ended=True) for process in self._family())

    @property
    def own_cpu_seconds(self) -> float:
        """Of the process without those that it has started."""
        return _cpu_seconds(psutil.Process(self.process.pid))

    @property
    def resident_bytes(self) -> int:
        return int(self.process.memory_info().rss)

    def wait_for(self, words: str, timeout: float) -> float:
        """Seconds from the start until the log holds `words`.

        Raises:
            ProcessFailedError: it ended before, or took longer than `timeout` seconds.
        """
        while words not in self.log:
            elapsed = time.perf_counter() - self.began
            if self.process.poll() is not None:
                raise ProcessFailedError(f"{self._command[0]} ended: {self.log[-_LOG_TAIL:]}")
            if elapsed > timeout:
                raise ProcessFailedError(
                    f"{self._command[0]} is not ready after {timeout:g} s: {self.log[-_LOG_TAIL:]}"
                )
            time.sleep(_LOOK)
        return time.perf_counter() - self.began

    def _family(self) -> set[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return {psutil.Process(self.process.pid), *self.process.children(recursive=True)}
        return set()


def _cpu_seconds(process: psutil.Process, *, and_ended: bool = False) -> float:
    """Its own; `and_ended`: and that of the processes that it has started and that have ended."""
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        own = times.user + times.system
        return float(own + times.children_user + times.children_system if and_ended else own)
    return 0.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def broker() -> Iterator[int]:
    """A Mosquitto of our own, as it comes, on this machine alone; yields its port.

    Raises:
        ProcessFailedError: it does not come up.
    """
    port = free_port()
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as configuration:
        configuration.write(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        configuration.flush()
        with Child(["mosquitto", "-c", configuration.name]) as mosquitto:
            mosquitto.wait_for("running", 10)
            yield port


@contextmanager
def redis() -> Iterator[tuple[str, Child]]:
    """A Redis of our own that writes nothing to disk, on this machine alone; yields its URL, and itself.

    Raises:
        ProcessFailedError: it does not come up.
    """
    port = free_port()
    with Child(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]) as server:
        server.wait_for("Ready to accept connections", 10)
        yield f"redis://127.0.0.1:{port}", server


def echo(port: int, dialect: str, tree: Path) -> Child:
    """The yardstick in one dialect, on the network loop of a client in `tree`; its log says `ready`."""
    return Child([sys.executable, str(_HERE / "echo.py"), str(port), dialect], {"PYTHONPATH": str(tree / "client")})


def worker(port: int, *arguments: str, environment: Mapping[str, str] | None = None) -> Child:
    """`inferbus serve` with these arguments; its log says `ready:`."""
    always = ["--broker", f"mqtt://127.0.0.1:{port}", "--worker-id", f"bench-{port}", "--rate-limit", "off"]
    more = ["--drain-timeout", "1s", "--log-format", "json"]
    # Not the command that is installed, which begins where this commit's packages do.
    return Child([sys.executable, "-P", "-m", "inferbus_worker", "serve", *always, *more, *arguments], environment)


def simulated_worker(port: int, *arguments: str) -> Child:
    return worker(port, "--engine", "simulated", *arguments)
