"""How often the turn of a redelivered message has begun and not ended: on disk, since such a turn may end its worker.

What is counted is held in memory, and the file follows. A thread of its own writes it, so that the network thread
waits for no disk; only `count` waits, in the worker thread whose turn is about to begin, and not for long. A file that
is locked, full or not ours costs a line in the log: the counts go on in memory until it can be written again.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from inferbus_client.mqtt.message import Incoming

log = logging.getLogger("inferbus.attempts")

_KEEP: Final = 7 * 86400.0
#: Of messages that were set aside: so many, and so many bytes of them, the newest.
_KEEP_SET_ASIDE: Final = 1000
_KEEP_BYTES: Final = 16 * 1024 * 1024
#: The longest wait for somebody else who has locked the file, and the pause after one that was in vain.
_BUSY: Final = 0.5
_REST: Final = 5.0
_CLOSE: Final = 0.2
# Without a sync for each write: a process that dies loses nothing by that, and a machine that does lost no worker to a
# turn.
_SCHEMA: Final = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA secure_delete = ON;
CREATE TABLE IF NOT EXISTS attempts (message TEXT PRIMARY KEY, count INTEGER NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS set_aside (topic TEXT NOT NULL, payload BLOB NOT NULL, at REAL NOT NULL);
"""
_COUNT: Final = "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?)"
_FORGET: Final = "DELETE FROM attempts WHERE message = ?"
_FORGET_OLD: Final = ("DELETE FROM attempts WHERE at < ?", "DELETE FROM set_aside WHERE at < ?")
_SET_ASIDE: Final = "INSERT INTO set_aside VALUES (?, ?, ?)"
_TRIM: Final = """
DELETE FROM set_aside WHERE rowid IN (
    SELECT rowid FROM (
        SELECT rowid,
            ROW_NUMBER() OVER (ORDER BY rowid DESC) AS place,
            SUM(LENGTH(payload)) OVER (ORDER BY rowid DESC) AS together
        FROM set_aside
    ) WHERE place > ? OR together > ?
)
"""


class Attempts:
    """Counts by a message's key. Any thread may use it; what is read comes from memory."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._counts: dict[str, int] = {}
        self._database: sqlite3.Connection | None = None
        self._failing = False
        self._rests_until = 0.0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="attempts")
        self._write(_nothing).result()  # what an earlier worker has counted is read before the first message comes

    def of(self, key: str) -> int:
        """How many turns have begun."""
        return self._counts.get(key, 0)

    def count(self, key: str) -> None:
        """A turn begins; returns when that is on disk, or cannot be had there in time."""
        self._counts[key] = count = self.of(key) + 1
        wait_for([self._write(lambda database: database.execute(_COUNT, (key, count, time.time())))], timeout=_BUSY)

    def forget(self, key: str) -> None:
        """The message needs no more turns. Does not wait."""
        if self._counts.pop(key, None) is not None:
            self._write(lambda database: database.execute(_FORGET, (key,)))

    def set_aside(self, message: Incoming, key: str) -> None:
        """Keep a message, for a week at most, for whoever looks into it. Does not wait."""

        def keep(database: sqlite3.Connection) -> None:
            with database:
                database.execute("BEGIN IMMEDIATE")
                database.execute(_SET_ASIDE, (message.topic, message.payload, time.time()))
                database.execute(_TRIM, (_KEEP_SET_ASIDE, _KEEP_BYTES))

        self.forget(key)
        self._write(keep)

    def close(self) -> None:
        """Let the writer finish what it has, unless that takes long; what is counted later stays in memory."""
        last = self._submit(self._close)
        self._writer.shutdown(wait=False)
        wait_for([last], timeout=_CLOSE)

    def _write(self, change: Callable[[sqlite3.Connection], object]) -> Future[None]:
        return self._submit(lambda: self._try(change))

    def _submit(self, task: Callable[[], None]) -> Future[None]:
        try:
            return self._writer.submit(task)
        except RuntimeError:  # closed
            nothing: Future[None] = Future()
            nothing.set_result(None)
            return nothing

    # --- the writer's thread ---

    def _try(self, change: Callable[[sqlite3.Connection], object]) -> None:
        if time.monotonic() < self._rests_until:
            return
        try:
            self._database = self._database or self._open()
            change(self._database)
        except (sqlite3.Error, OSError) as error:
            self._rests_until = time.monotonic() + _REST
            if not self._failing:
                log.error(  # noqa: TRY400 - a sentence for the operator, not a traceback
                    "the attempts' file %s cannot be used (%s): turns that end their worker are counted in memory",
                    self._file,
                    error,
                )
            self._failing = True
        else:
            self._failing = False

    def _open(self) -> sqlite3.Connection:
        """The file, for our eyes alone: it holds what others have asked."""
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self._file, os.O_CREAT | os.O_RDWR, 0o600))
        self._file.chmod(0o600)  # it may be an older one
        database = sqlite3.connect(self._file, timeout=_BUSY, isolation_level=None)
        try:
            database.executescript(_SCHEMA)
            for statement in _FORGET_OLD:
                database.execute(statement, (time.time() - _KEEP,))
            kept: list[tuple[str, int]] = database.execute("SELECT message, count FROM attempts").fetchall()
        except sqlite3.Error:
            database.close()
            raise
        for key, count in kept:
            self._counts.setdefault(key, count)
        return database

    def _close(self) -> None:
        if self._database is not None:
            with closing(self._database):
                self._database = None


def _nothing(_database: Any) -> None:
    """For the sake of opening the file."""
