"""Brokers besides Mosquitto, each started for real, on a free loopback port and in a folder of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from support.mosquitto import HOST, Mosquitto, free_port
from support.needs import needs_program
from support.scripts import Running
from support.waiting import until

#: An Erlang machine takes its time on a busy one.
_START_TIMEOUT: Final = 120.0
#: Where Debian keeps the scripts themselves: the ones on everybody's PATH change the user first.
_RABBITMQ: Final = "/usr/lib/rabbitmq/bin/rabbitmq-server"


class OtherBroker(ABC):
    """A context manager: inside the `with` it takes connections at `url`."""

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="inferbus-broker-")))
        self.port = free_port()
        try:
            broker = self._stack.enter_context(Running(self._command(folder), dict(self._environment(folder))))
            until(lambda: self._is_listening(broker), _START_TIMEOUT)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return f"mqtt://{HOST}:{self.port}"

    @abstractmethod
    def _command(self, folder: Path) -> Sequence[str]: ...

    def _environment(self, folder: Path) -> Mapping[str, str]:  # noqa: ARG002 - where there is nothing to say
        return {}

    def _is_listening(self, broker: Running) -> bool:
        if broker.process.poll() is not None:
            raise AssertionError(f"the broker ended with status {broker.process.returncode}: {broker.out}{broker.err}")
        with suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
            return True
        return False


class Nats(OtherBroker):
    """nats-server, which speaks MQTT 3.1.1 over JetStream."""

    def _command(self, folder: Path) -> Sequence[str]:
        config = folder / "nats.conf"
        config.write_text(
            f'server_name: inferbus\nlisten: "{HOST}:{free_port()}"\njetstream {{ store_dir: "{folder}/jetstream" }}\n'
            f'mqtt {{ host: "{HOST}", port: {self.port} }}\n'
        )
        return [needs_program("nats-server"), "-c", str(config)]


class RabbitMq(OtherBroker):
    """rabbitmq-server with its MQTT plugin."""

    def __enter__(self) -> Self:
        self._names = free_port()
        return super().__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        super().__exit__(kind, error, at)
        command = [needs_program("epmd"), "-port", str(self._names), "-kill"]
        until(lambda: subprocess.run(command, capture_output=True, check=False).returncode == 0)

    def _command(self, folder: Path) -> Sequence[str]:
        needs_program("rabbitmq-server")
        (folder / "plugins").write_text("[rabbitmq_mqtt].\n")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.local = {HOST}:{free_port()}\nmqtt.listeners.tcp.local = {HOST}:{self.port}\n"
            "mqtt.allow_anonymous = true\n"
        )
        return [_RABBITMQ if Path(_RABBITMQ).exists() else str(shutil.which("rabbitmq-server"))]

    def _environment(self, folder: Path) -> Mapping[str, str]:
        return {
            # Nodes find each other through a daemon, which stays when they end: this one has one of its own.
            "ERL_EPMD_PORT": str(self._names),
            "ERL_EPMD_ADDRESS": HOST,
            # And there they talk; by default all on this machine in one place, another program's too.
            "RABBITMQ_DIST_PORT": str(free_port()),
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"inferbus-{self.port}@localhost",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }


class MosquittoOverWebSocket(Mosquitto):
    """Mosquitto, reached over WebSocket, as a browser reaches it."""

    def __init__(self) -> None:
        self._web = free_port()
        super().__init__()

    @property
    def url(self) -> str:
        return f"ws://{HOST}:{self._web}"

    def _lines(self) -> list[str]:
        return [*super()._lines(), f"listener {self._web} {HOST}", "protocol websockets"]
