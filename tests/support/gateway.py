"""`inferbus gateway` as a process of its own, as a user starts it."""

from __future__ import annotations

import http.client
import json
from contextlib import closing, suppress
from types import TracebackType
from typing import Any, Final, Self

from support.inferbus import PROGRAM, environment
from support.mosquitto import HOST, Mosquitto, free_port
from support.scripts import Running
from support.waiting import PATIENCE, until


def told(port: int, path: str) -> tuple[int, Any]:
    """What a server on this machine says at a path: the status and, where it is JSON, what it has said."""
    with closing(http.client.HTTPConnection(HOST, port, timeout=PATIENCE)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read()
    return response.status, json.loads(text) if response.headers.get_content_subtype() == "json" else text.decode()


class GatewayProcess:
    """A context manager: inside the `with` the gateway is ready; leaving it stops it with SIGTERM.

    Args:
        broker: where it finds workers.
        *arguments: more of them, as they are.
    """

    def __init__(self, broker: Mosquitto, *arguments: str) -> None:
        self.port: Final = free_port()
        self.url: Final = f"http://{HOST}:{self.port}"
        listen = ("--listen", f"{HOST}:{self.port}")
        self._running = Running([PROGRAM, "gateway", "--broker", broker.url, *listen, *arguments], environment())

    def __enter__(self) -> Self:
        self._running.__enter__()
        try:
            until(self._is_ready)
        except BaseException:
            self._running.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        process = self._running.process
        try:
            if process.poll() is None:
                process.terminate()
                assert process.wait(PATIENCE) == 0, self.log
        finally:
            self._running.__exit__(kind, error, at)

    @property
    def log(self) -> str:
        return self._running.err

    def _is_ready(self) -> bool:
        assert self._running.process.poll() is None, f"the gateway ended: {self.log}"
        with suppress(ConnectionError):
            return told(self.port, "/readyz")[0] == 200
        return False
