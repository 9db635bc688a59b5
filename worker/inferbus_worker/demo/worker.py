"""The worker that `inferbus demo` runs: a child process that cannot outlive it."""

from __future__ import annotations

import shutil
import tempfile
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence, decode_announcement
from inferbus_client.mqtt.link import Link
from inferbus_client.mqtt.message import Incoming
from inferbus_client.settings.connection import ConnectionSettings
from inferbus_worker.demo.child import Child, DemoError

_DRAIN: Final = 2
_CONNECT_TIMEOUT: Final = 10.0


class DemoWorker:
    """A context manager: enters with the worker process started (not yet ready), leaves when it is gone.

    Args:
        connection: how to reach the broker. The worker takes the password from the environment, as we did.
        serve: what `inferbus serve` is told of models and projects.
        config: a configuration file for it, if it is to have one.

    Attributes:
        id: its name on the bus.
    """

    def __init__(
        self, connection: ConnectionSettings, serve: Sequence[str], config: Mapping[str, Any] | None = None
    ) -> None:
        self._connection = connection
        self.id = f"demo-{uuid.uuid4().hex[:8]}"
        self._config = config
        self._arguments = [
            *("serve", *serve, "--broker", connection.broker, "--mqtt-version", connection.mqtt_version),
            *("--worker-id", self.id, "--log-format", "console"),
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
        self._link = Link(self._connection.link_options(f"{self.id}-watch"), on_message=self._presence)
        try:
            self._link.connect(_CONNECT_TIMEOUT)
            self._link.subscribe({topics.presence(self.id): 1})
            self._child = Child("worker", self._arguments, self._folder / "worker.log")
        except BaseException:
            self._link.close()
            shutil.rmtree(self._folder)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._child.stop()
        finally:
            # A demo's presence is of no interest once it is over: an empty retained message deletes it.
            self._link.publish(topics.presence(self.id), b"", qos=1, retain=True)
            self._link.close()
            if not isinstance(error, DemoError):
                shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._child.pid

    def wait(self, timeout: float) -> Presence | None:
        """Wait for at most `timeout` seconds for news.

        Returns:
            What the worker last said about itself; None before its first word.

        Raises:
            DemoError: it ended.
        """
        self._heard.wait(timeout)
        self._heard.clear()
        self._child.check()
        return self._said

    def end_of_log(self) -> str:
        return self._child.end_of_log()

    def _presence(self, message: Incoming) -> None:
        presence = decode_announcement(Presence, message.payload)
        if presence is not None:
            self._said = presence
            self._heard.set()
