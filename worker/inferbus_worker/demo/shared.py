"""What the workers of `inferbus demo --workers 2` share: a Redis and a Mosquitto, for as long as the demo runs.

The embedded broker will not do for several: it grants a shared subscription and delivers nothing for it.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from inferbus_worker.demo.child import DemoError
from inferbus_worker.engines.managed.commands import HOST, Command
from inferbus_worker.engines.managed.server import Server, free_port

#: Where Debian and Homebrew put daemons, which is not on everybody's PATH.
_DAEMONS: Final = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
#: Program, its package in Debian and Ubuntu, and in Homebrew.
_REDIS: Final = ("redis-server", "redis-server", "redis")
_MOSQUITTO: Final = ("mosquitto", "mosquitto", "mosquitto")
_START_TIMEOUT: Final = 20.0
_STOP_TIMEOUT: Final = 5.0
_TICK: Final = 0.05


def check_installed(*, broker: bool) -> None:
    """What a group needs here is there.

    Args:
        broker: whether a Mosquitto is needed; not where a broker is named.

    Raises:
        DemoError: something is missing; with what to install.
    """
    needed = [_REDIS, *([_MOSQUITTO] if broker else [])]
    missing = [names for names in needed if _path(names[0]) is None]
    if missing:
        programs, packages, formulas = (" ".join(column) for column in zip(*missing, strict=True))
        besides = "; or name a broker that knows shared subscriptions with --broker" if _MOSQUITTO in missing else ""
        raise DemoError(
            f"several workers need {' and '.join(programs.split())}, not found here: sudo apt-get install {packages} "
            f"(macOS: brew install {formulas}){besides}"
        )
    if any(find_spec(name) is None for name in ("redis", "psutil")):
        raise DemoError("several workers need Python's redis and psutil: pip install 'inferbus-worker[redis,managed]'")


class _LocalServer(ABC):
    """Runs inside the `with`, below a guard that ends it however the demo ends.

    Attributes:
        port: of the loopback interface.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        self.port = free_port()

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="inferbus-demo-"))
        try:
            path = _path(self._program) or self._program
            self._server = Server(Command((path, *self._options(self._folder)), {}), self.port, self._program)
            self._server.start()
            try:
                self._wait()
            except BaseException:
                self._server.stop(_STOP_TIMEOUT)
                raise
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.stop(_STOP_TIMEOUT)
        shutil.rmtree(self._folder, ignore_errors=True)

    @abstractmethod
    def _options(self, folder: Path) -> Sequence[str]:
        """What the program is told, with a folder of its own."""

    def _wait(self) -> None:
        until = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < until:
            if not self._server.is_alive:
                break
            try:
                socket.create_connection((HOST, self.port), _TICK).close()
            except OSError:
                time.sleep(_TICK)
            else:
                return
        raise DemoError(f"{self._program} does not answer: {self._server.output.last_words or self._server.ending}")


class DemoStore(_LocalServer):
    """A Redis that keeps nothing on the disk. Its password is in a folder that only its owner may enter."""

    def __init__(self) -> None:
        super().__init__(_REDIS[0])
        self._password = uuid.uuid4().hex

    @property
    def serve(self) -> Sequence[str]:
        """What `inferbus serve` is told of it."""
        return ("--state", f"redis://{HOST}:{self.port}/0", "--state-file", str(self._folder / "password"))

    def _options(self, folder: Path) -> Sequence[str]:
        (folder / "password").write_text(self._password)
        (folder / "redis.conf").write_text(
            f'port {self.port}\nbind {HOST}\nrequirepass {self._password}\ndir "{folder}"\n'
            'save ""\nappendonly no\nmaxmemory-policy noeviction\n'
        )
        return (str(folder / "redis.conf"),)


class DemoBroker(_LocalServer):
    """A Mosquitto that lets everybody in, as the embedded broker does."""

    def __init__(self) -> None:
        super().__init__(_MOSQUITTO[0])

    @property
    def url(self) -> str:
        return f"mqtt://{HOST}:{self.port}"

    def _options(self, folder: Path) -> Sequence[str]:
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} {HOST}\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n"
        )
        return ("-c", str(folder / "mosquitto.conf"))


def _path(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_DAEMONS}")
