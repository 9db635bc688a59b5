"""Acknowledge after reply: a QoS 1 request stays with the broker until its terminal reply has been sent.

So a worker that dies answers nothing twice and loses nothing: the broker delivers again what was not acknowledged, to
the same worker id, marked as a duplicate. A message whose turn has crashed its worker `max_attempts` times is set
aside. Turns are counted on disk when they begin, and only those of redelivered messages: the everyday message costs no
write, so its first crash goes uncounted, and the count stops one short.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from inferbus_client.link_options import Incoming

log = logging.getLogger("inferbus.acknowledgements")

_KEEP_ATTEMPTS: Final = 7 * 86400.0
_KEEP_SET_ASIDE: Final = 1000
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS attempts (message TEXT PRIMARY KEY, count INTEGER NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS set_aside (topic TEXT NOT NULL, payload BLOB NOT NULL, at REAL NOT NULL);
"""


class Attempts:
    """How often a redelivered message's turn has begun and not ended. Any thread may use it."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._database.executescript(_SCHEMA)
        self._execute("DELETE FROM attempts WHERE at < ?", time.time() - _KEEP_ATTEMPTS)

    def of(self, message: Incoming) -> int:
        found = self._execute("SELECT count FROM attempts WHERE message = ?", _digest(message))
        return int(found[0][0]) if found else 0

    def count(self, message: Incoming) -> None:
        self._execute(
            "INSERT INTO attempts VALUES (?, 1, ?) "
            "ON CONFLICT (message) DO UPDATE SET count = count + 1, at = excluded.at",
            _digest(message),
            time.time(),
        )

    def set_aside(self, message: Incoming) -> None:
        """Keep the message for whoever looks into it; the oldest of a thousand goes."""
        self._execute("INSERT INTO set_aside VALUES (?, ?, ?)", message.topic, message.payload, time.time())
        self._execute(
            "DELETE FROM set_aside WHERE rowid NOT IN (SELECT rowid FROM set_aside ORDER BY rowid DESC LIMIT ?)",
            _KEEP_SET_ASIDE,
        )
        self.forget(message)

    def forget(self, message: Incoming) -> None:
        self._execute("DELETE FROM attempts WHERE message = ?", _digest(message))

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(statement, values).fetchall()


def _digest(message: Incoming) -> str:
    return hashlib.sha256(message.topic.encode() + b"\0" + message.payload).hexdigest()


class Acknowledgements:
    """Which messages the broker still waits to see acknowledged. For the network thread, but for `turn_begins`.

    Args:
        acknowledge: tells the broker.
        attempts: the count on disk, or None where messages are acknowledged on receipt: then all of this is idle.
        max_attempts: so many turns that ended their worker, and a message is poison.
    """

    def __init__(
        self, acknowledge: Callable[[Incoming], None], *, attempts: Attempts | None, max_attempts: int
    ) -> None:
        self._acknowledge = acknowledge
        self._attempts = attempts
        self._max_attempts = max_attempts
        # By packet identifier. A broker that has forgotten us gives an identifier away again while the message that had
        # it before is still under way: then that one must not be acknowledged in the place of the new one.
        self._open: dict[int, Incoming] = {}

    def __len__(self) -> int:
        return len(self._open)

    def is_under_way(self, message: Incoming) -> bool:
        """Whether this is a redelivery, after a reconnect, of what this process has not answered yet."""
        return message.dup and message.ack_id in self._open

    def begin(self, message: Incoming) -> bool:
        """Note a new message; False where it is poison, and has been set aside."""
        if self._attempts is None or not message.qos:
            return True
        self._open[message.ack_id] = message
        if not message.dup or self._attempts.of(message) < self._max_attempts - 1:
            return True
        log.error("set aside a message on %r: its turn ended %d workers", message.topic, self._max_attempts)
        self._attempts.set_aside(message)
        return False

    def turn_begins(self, message: Incoming | None) -> None:
        """A worker thread takes the request; from any thread."""
        if self._attempts is not None and message is not None and message.dup:
            self._attempts.count(message)

    def end(self, message: Incoming) -> None:
        """The terminal reply has been sent, or there is none to send."""
        if self._attempts is None or not message.qos:
            return
        if self._open.get(message.ack_id) is not message:
            return
        del self._open[message.ack_id]
        if message.dup:
            self._attempts.forget(message)
        self._acknowledge(message)

    def close(self) -> None:
        if self._attempts is not None:
            self._attempts.close()
