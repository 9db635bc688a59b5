"""The gateway that `inferbus demo` runs beside the worker: a page, and OpenAI-shaped HTTP."""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from inferbus_client.errors import SettingsError
from inferbus_client.settings.connection import ConnectionSettings
from inferbus_client.web.listening import open_socket
from inferbus_worker.demo.child import Child, DemoError

_HOST: Final = "127.0.0.1"
#: Where everybody looks first, then any port that is free.
_PORTS: Final = (8080, 0)
_START_TIMEOUT: Final = 20.0
_TICK: Final = 0.1


class DemoGateway:
    """A context manager: inside the `with` it answers at `url`.

    Args:
        connection: how to reach the broker. The password comes from the environment.
    """

    def __init__(self, connection: ConnectionSettings) -> None:
        self._port = _free_port()
        self._arguments = [
            *("gateway", "--broker", connection.broker, "--mqtt-version", connection.mqtt_version),
            *("--listen", f"{_HOST}:{self._port}", "--drain-timeout", "0s"),
        ]

    @staticmethod
    def is_installed() -> bool:
        return all(find_spec(name) is not None for name in ("starlette", "uvicorn", "prometheus_client"))

    @property
    def url(self) -> str:
        return f"http://{_HOST}:{self._port}"

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="inferbus-demo-"))
        try:
            self._child = Child("gateway", self._arguments, self._folder / "gateway.log")
            try:
                self._wait()
            except BaseException:
                self._child.stop()
                raise
        except BaseException as error:
            self._clear(error)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._child.stop()
        finally:
            self._clear(error)

    def _wait(self) -> None:
        until = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < until:
            self._child.check()
            try:
                socket.create_connection((_HOST, self._port), _TICK).close()
            except OSError:
                time.sleep(_TICK)
            else:
                return
        raise DemoError(f"the gateway does not answer. {self._child.end_of_log()}")

    def _clear(self, error: BaseException | None) -> None:
        if not isinstance(error, DemoError):
            shutil.rmtree(self._folder, ignore_errors=True)


def _free_port() -> int:
    for port in _PORTS:
        try:
            with open_socket(f"{_HOST}:{port}") as listener:
                return int(listener.getsockname()[1])
        except SettingsError:
            continue
    raise DemoError(f"no port is free on {_HOST}")
