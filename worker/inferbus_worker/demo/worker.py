"""The worker that `inferbus demo` runs: a child process that cannot outlive it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence, decode_announcement
from inferbus_client.errors import InferbusError
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Incoming
from inferbus_client.settings.connection import ConnectionSettings

_TAIL: Final = 25
_DRAIN: Final = 2
_STOP_TIMEOUT: Final = 6.0
_CONNECT_TIMEOUT: Final = 10.0


class DemoError(InferbusError):
    """The demo cannot go on; the text says why and shows the end of the worker's log."""


class DemoWorker:
    """A context manager: enters with the worker process started (not yet ready), leaves when it is gone.

    Args:
        connection: how to reach the broker. The worker takes the password from the environment, as we did.
        serve: what `inferbus serve` is told of models and projects.
        config: a configuration file for it, if it is to have one.
    """

    def __init__(
        self, connection: ConnectionSettings, serve: Sequence[str], config: Mapping[str, Any] | None = None
    ) -> None:
        self._connection = connection
        self._id = f"demo-{uuid.uuid4().hex[:8]}"
        self._config = config
        self._arguments = [
            *("serve", *serve, "--broker", connection.broker, "--mqtt-version", connection.mqtt_version),
            *("--worker-id", self._id, "--log-format", "console"),
            # Nobody to protect from anybody: a visitor may type as fast as they like, and leave at once.
            *("--rate-limit", "off", "--drain-timeout", f"{_DRAIN}s"),
        ]
        self._heard = threading.Event()
        self._said: Presence | None = None

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="inferbus-demo-"))
        if self._config is not None:
            file = self._folder / "inferbus.yaml"
            file.write_text(yaml.safe_dump(dict(self._config), sort_keys=False))
            self._arguments += ["--config", str(file)]
        self._link = Link(self._connection.link_options(f"{self._id}-watch"), on_message=self._presence)
        try:
            self._link.connect(_CONNECT_TIMEOUT)
            self._link.subscribe({topics.presence(self._id): 1})
            self._process = self._start()
        except BaseException:
            self._link.close()
            shutil.rmtree(self._folder)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._stop()
        finally:
            # A demo's presence is of no interest once it is over: an empty retained message deletes it.
            self._link.publish(topics.presence(self._id), b"", qos=1, retain=True)
            self._link.close()
            if not isinstance(error, DemoError):
                shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def log(self) -> Path:
        return self._folder / "worker.log"

    def wait(self, timeout: float) -> Presence | None:
        """Wait for at most `timeout` seconds for news.

        Returns:
            What the worker last said about itself; None before its first word.

        Raises:
            DemoError: it ended.
        """
        self._heard.wait(timeout)
        self._heard.clear()
        if self._process.poll() is not None:
            raise DemoError(self._last_words())
        return self._said

    def end_of_log(self) -> str:
        """The last lines of the worker's log, and where it is."""
        with self.log.open(errors="replace") as log:
            tail = "".join(deque(log, _TAIL))
        return f"The end of {self.log}:\n{tail}"

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - our own program, with arguments of our own making
                [sys.executable, "-m", "inferbus_worker.demo.lifeline", *self._arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                # Ctrl-C goes to the whole foreground group: in a chat it stops an answer, not the worker.
                process_group=0,
            )

    def _stop(self) -> None:
        """Ask, then insist. A Ctrl-C meanwhile insists at once; the engine's processes follow the worker's end."""
        try:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(_STOP_TIMEOUT)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _presence(self, message: Incoming) -> None:
        presence = decode_announcement(Presence, message.payload)
        if presence is not None:
            self._said = presence
            self._heard.set()

    def _last_words(self) -> str:
        return f"the worker ended with status {self._process.returncode}. {self.end_of_log()}"
