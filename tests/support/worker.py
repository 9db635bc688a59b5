"""`inferbus serve` as a process of its own, as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence, decode_announcement
from support.listener import Listener
from support.mosquitto import Mosquitto
from support.processes import assert_gone, family
from support.scripts import Running
from support.waiting import LOADING, PATIENCE, until

_STOP_TIMEOUT: Final = 40.0


class WorkerProcess:
    """A context manager: inside the `with` the worker is ready; leaving it stops it with SIGTERM.

    Args:
        broker: where it serves.
        model: what it serves; None is enough for the simulated engine. With `backend` it is served elsewhere.
        extra: more arguments, as they are.
        ready_timeout: seconds that it may take to become ready.
        program: what is run; it must end when its standard input does.
        broker_url: where it is not the one that the broker says of itself.
        **options: flags by name (`queue_size=10` is `--queue-size 10`); a list repeats its flag, True is a bare flag.
            `workers` bounds them as well, where `max_workers` does not.

    Attributes:
        http_port: what `http` says.
    """

    def __init__(
        self,
        broker: Mosquitto,
        model: str | None = None,
        *,
        extra: Sequence[str] = (),
        ready_timeout: float = LOADING,
        program: Sequence[str] = (sys.executable, "-m", "inferbus_worker.demo.lifeline"),
        broker_url: str | None = None,
        **options: object,
    ) -> None:
        self.id = f"worker-{uuid.uuid4().hex[:8]}"
        self._broker = broker
        self._ready_timeout = ready_timeout
        self._program = program
        named = {
            **({} if "backend" in options else {"engine": "simulated" if model is None else "vllm"}),
            "broker": broker_url or broker.url,
            "worker_id": self.id,
            "log_format": "json",
            **({"max_workers": options["workers"]} if "workers" in options else {}),
            **options,
        }
        self.id = str(named["worker_id"])
        self.http_port: Any = options.get("http")
        self.arguments = ["serve", *([] if model is None else [model]), *_flags(named), *extra]

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="inferbus-worker-")
        try:
            self.start()
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.stop()
        finally:
            if error is not None:
                sys.stderr.write(f"--- log of {self.id} ---\n{self.log}\n")
            self._folder.cleanup()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """What it logged so far, one JSON object a line."""
        return self._log.read_text(errors="replace")

    @property
    def _log(self) -> Path:
        return Path(self._folder.name) / "log"

    def start(self) -> None:
        """Start it, and return when it says `ready`."""
        with Listener(self._broker, topics.presence(self.id)) as listener:
            # What an earlier worker of this id left behind is not this one's word.
            past = len(listener.wait(1)) if self._was_here() else 0
            self.process = self._popen()
            until(lambda: self._says(listener, "ready", past), self._ready_timeout)

    def stop(self, timeout: float = _STOP_TIMEOUT) -> int:
        """Stop it with SIGTERM.

        Returns:
            Its exit status.

        Raises:
            AssertionError: it, or a process that it started, is still there after `timeout` seconds.
        """
        if self.process.poll() is None:
            relatives = family(self.pid)
            self.process.send_signal(signal.SIGTERM)
            assert_gone(relatives, timeout)
        return self._reap(timeout)

    def kill(self) -> None:
        """SIGKILL, and wait until its engine's processes are gone too."""
        relatives = family(self.pid)
        self.process.kill()
        self._reap(PATIENCE)
        assert_gone(relatives)

    def _reap(self, timeout: float) -> int:
        status = self.process.wait(timeout)
        if self.process.stdin is not None:
            self.process.stdin.close()
        return status

    def _popen(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*self._program, *self.arguments],
                stdin=subprocess.PIPE,  # held open; so the worker ends even where pytest is killed
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def _says(self, listener: Listener, state: str, past: int) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the worker ended with status {self.process.returncode}:\n{self.log}")
        said = [decode_announcement(Presence, message.payload) for message in listener.heard[past:]]
        return any(presence is not None and presence.state == state for presence in said)

    def _was_here(self) -> bool:
        return hasattr(self, "process")


def starting(broker: Mosquitto, *arguments: str) -> Running:
    """A worker that may or may not become ready; whether it does is what a test is about."""
    command = [sys.executable, "-m", "inferbus_worker", "serve", "--engine", "simulated", "--broker", broker.url]
    return Running([*command, "--rate-limit", "off", *arguments])


def _flags(options: dict[str, object]) -> list[str]:
    flags: list[str] = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            flags.append(flag)
        else:
            values = value if isinstance(value, list | tuple) else [value]
            flags += [part for each in values for part in (flag, str(each))]
    return flags
