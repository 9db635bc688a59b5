"""The attempts' file: what is counted is there after a crash, for our eyes alone, and no lock holds anybody up."""

from __future__ import annotations

import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from inferbus_client.mqtt.message import Incoming
from inferbus_worker.bus.attempts import _BUSY, Attempts
from support.waiting import until

#: Far more than any of these calls takes on a busy machine, far less than a hundred waits for a lock.
_AT_ONCE = 20.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "worker.sqlite"


@pytest.fixture
def attempts(file: Path) -> Iterator[Attempts]:
    attempts = Attempts(file)
    yield attempts
    attempts.close()


def close(attempts: Attempts) -> None:
    """Close it, and wait for its writer, for which `close` waits an instant alone."""
    attempts.close()
    attempts._writer.shutdown()


def rows(file: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file)) as database:
        return database.execute(query).fetchall()


def test_what_is_counted_outlives_the_worker(file: Path, attempts: Attempts) -> None:
    attempts.count("a")
    attempts.count("a")
    attempts.count("b")
    attempts.forget("b")
    close(attempts)
    again = Attempts(file)
    assert (again.of("a"), again.of("b"), again.of("c")) == (2, 0, 0)
    again.close()


def test_nobody_else_may_read_it(file: Path, attempts: Attempts) -> None:
    attempts.count("a")
    assert [stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()] == [0o600] * 3  # two are SQLite's own
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_an_older_file_is_closed_to_others(file: Path) -> None:
    file.parent.mkdir()
    file.touch(mode=0o644)
    Attempts(file).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_set_aside_is_bounded_in_bytes(file: Path, attempts: Attempts) -> None:
    for number in range(20):
        attempts.set_aside(Incoming("p/user_input", bytes([number]) * 1_000_000), str(number))
    until(lambda: rows(file, "SELECT MAX(rowid) FROM set_aside") == [(20,)])
    kept = rows(file, "SELECT payload FROM set_aside ORDER BY rowid")
    assert [payload[0] for (payload,) in kept if isinstance(payload, bytes)] == list(range(4, 20))


def test_what_is_set_aside_is_bounded_in_time(file: Path, attempts: Attempts) -> None:
    attempts.set_aside(Incoming("p/user_input", b"long ago"), "a")
    close(attempts)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE set_aside SET at = at - 8 * 86400")
    close(Attempts(file))
    assert rows(file, "SELECT COUNT(*) FROM set_aside") == [(0,)]
    assert b"long ago" not in file.read_bytes()


def test_a_lock_is_not_waited_for_longer_than_a_turn_is(attempts: Attempts) -> None:
    waits: list[int] = []
    attempts._write(lambda database: waits.extend(database.execute("PRAGMA busy_timeout").fetchone())).result()
    assert waits == [1000 * _BUSY]


class TestLocked:
    @pytest.fixture
    def locked(self, file: Path, attempts: Attempts) -> Iterator[None]:
        attempts.count("a")
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
            other.execute("ROLLBACK")

    @pytest.mark.usefixtures("locked")
    def test_nobody_is_held_up(self, attempts: Attempts) -> None:
        began = time.monotonic()
        for number in range(100):
            attempts.count(str(number))
            attempts.forget(str(number))
        attempts.count("a")
        assert attempts.of("a") == 2
        assert time.monotonic() - began < _AT_ONCE

    @pytest.mark.usefixtures("locked")
    def test_it_is_said_once(self, attempts: Attempts, caplog: pytest.LogCaptureFixture) -> None:
        for number in range(50):
            attempts.count(str(number))
        until(lambda: caplog.records)
        assert [record.message for record in caplog.records if "cannot be used" not in record.message] == []
        assert len(caplog.records) == 1

    @pytest.mark.usefixtures("locked")
    def test_a_worker_starts_all_the_same(self, file: Path) -> None:
        began = time.monotonic()
        other = Attempts(file)
        other.count("b")
        assert other.of("b") == 1
        other.close()
        assert time.monotonic() - began < _AT_ONCE


@pytest.mark.parametrize("content", [b"no database at all" * 100, None], ids=["not a database", "a folder"])
def test_a_file_that_is_none_ends_nothing(file: Path, content: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    file.parent.mkdir()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    attempts = Attempts(file)
    attempts.count("a")
    attempts.set_aside(Incoming("p/user_input", b"x"), "b")
    assert attempts.of("a") == 1
    attempts.close()
    assert len(caplog.records) == 1
