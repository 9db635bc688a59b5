"""A real redis-server per test run: a context manager on a free loopback port."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from support.mosquitto import HOST, free_port
from support.needs import needs_program
from support.waiting import until


class RedisServer:
    """A server of our own. Its port stays the same when it is started again.

    Args:
        options: more of its options, such as `--appendonly yes`.
        port: where it listens; a free one where none is said.
        password: what its options make it ask for.
    """

    def __init__(self, *options: str, port: int | None = None, password: str | None = None) -> None:
        self._program = needs_program("redis-server")
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._password = password
        self.port = port or free_port()

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="inferbus-redis-")
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self) -> redis.Redis:
        """A plain client of its own, for whoever looks into the store."""
        return redis.Redis(host=HOST, port=self.port, password=self._password)

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, *self._arguments(Path(self._folder.name))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self._answers)

    def kill(self) -> None:
        """End it at once, as `kill -9` does; what its options keep on disk stays there."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _arguments(self, folder: Path) -> list[str]:
        arguments = ["--port", str(self.port), "--bind", HOST, "--dir", str(folder)]
        return [*arguments, "--save", "", "--daemonize", "no", *self._options]

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "redis-server has ended"
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False
