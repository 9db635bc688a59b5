"""A real Mosquitto per test run, and its command line clients, which are not ours."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from support.needs import needs_program
from support.waiting import PATIENCE, until

HOST: Final = "127.0.0.1"


#: Below the ports that systems give to connections and to whoever asks for any: a broker that is down for a while, or
#: not yet up, loses its own to nobody. Processes that share a run's tests have a part of them each.
_PORTS: Final = range(16_384, 32_768)
_PARTS: Final = 16


def _ports() -> Iterator[int]:
    part = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PARTS
    ours = _PORTS[part::_PARTS]
    place = random.randrange(len(ours))  # noqa: S311 - no secret; beside another run of the tests
    while True:
        place = (place + 1) % len(ours)
        yield ours[place]


_next_ports: Final = _ports()


def free_port() -> int:
    """A port that nobody has, and that this process has not given away lately."""
    for port in _next_ports:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Mosquitto does: what has ended is free
            probe.bind((HOST, port))
            return port
    raise AssertionError


class Mosquitto:
    """A broker of our own: a context manager. Its port stays the same when it is started again.

    Args:
        config: more lines for its configuration file. `listener` and `allow_anonymous` are there already, unless a
            line of these says `listener` itself.
    """

    def __init__(self, *config: str) -> None:
        self._program = needs_program("mosquitto")
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._port = free_port()

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="inferbus-mosquitto-")
        for attempt in range(3):
            try:
                self.start()
            except OSError:
                if attempt == 2:
                    self._folder.cleanup()
                    raise
                self._port = free_port()  # somebody else took it in between
            else:
                return self
        raise AssertionError

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        self._folder.cleanup()

    @property
    def host(self) -> str:
        return HOST

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"mqtt://{HOST}:{self._port}"

    @property
    def folder(self) -> Path:
        """Its own folder, for certificates and password files."""
        return Path(self._folder.name)

    @property
    def pid(self) -> int:
        assert self._process is not None, "it is not running"
        return self._process.pid

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        config = self.folder / "mosquitto.conf"
        config.write_text("\n".join(self._lines()) + "\n")
        with (self.folder / "errors").open("ab") as errors:
            self._process = subprocess.Popen([self._program, "-c", str(config)], stdout=errors, stderr=errors)
        until(self._is_listening)

    def stop(self) -> None:
        """SIGTERM: it says goodbye to nobody, but closes its files."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: what a power cut does."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing moves."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _lines(self) -> list[str]:
        # Standard output would be buffered, and a test that reads the log would see nothing.
        lines = ["persistence false", f"log_dest file {self.folder / 'log'}"]
        lines += ["log_type error", "log_type warning", "log_type notice"]
        if not any(line.startswith("max_queued_messages ") for line in self._config):
            # By default it drops, without a word, what is over a thousand messages for one client: a busy machine's
            # listener, or worker, may well be as far behind. Whoever wants to see that says so.
            lines.append("max_queued_messages 0")
        if os.geteuid() == 0:
            lines.append("user root")  # else it becomes a user who may not read our folder
        if not any(line.startswith("listener ") for line in self._config):
            lines += [f"listener {self._port} {HOST}", "allow_anonymous true"]
        return [*lines, *self._config]

    def _is_listening(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            errors = (self.folder / "errors").read_text()
            raise OSError(f"mosquitto ended with status {self._process.returncode}: {errors}{self.log}")
        with suppress(OSError), socket.create_connection((HOST, self._port), timeout=1):
            return True
        return False

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        with suppress(ProcessLookupError):
            self.resume()  # a paused process hears nothing but SIGKILL
        self._process.wait(PATIENCE)
        self._process = None


class Address(Protocol):
    """Where a broker is, ours or another."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


def mosquitto_pub(broker: Address, topic: str, message: str | bytes | None, *options: str) -> None:
    """Publish one message (None: an empty one), as a user would. QoS 1 unless `options` say another."""
    payload = message.encode() if isinstance(message, str) else message
    content = ["-n"] if payload is None else ["-s"]
    _run("mosquitto_pub", broker, ["-q", "1", "-t", topic, *content, *options], stdin=payload)


def mosquitto_rr(broker: Address, request: str, response: str, message: str, *options: str) -> str:
    """Publish a request with MQTT 5's Response Topic, and return the response."""
    arguments = ["-V", "5", "-t", request, "-e", response, "-m", message, "-W", "30", "-q", "1", *options]
    return _run("mosquitto_rr", broker, arguments)


def mosquitto_sub(broker: Address, topic: str, *options: str, count: int = 1, timeout: int = 30) -> str:
    """What the next `count` messages say (retained ones count)."""
    return _run("mosquitto_sub", broker, ["-q", "1", "-t", topic, "-C", str(count), "-W", str(timeout), *options])


def _run(program: str, broker: Address, arguments: Sequence[str], *, stdin: bytes | None = None) -> str:
    command = [needs_program(program), "-h", broker.host, "-p", str(broker.port), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, f"{program} ended with status {done.returncode}: {done.stderr.decode()}"
    return done.stdout.decode().removesuffix("\n")
