"""N named threads that survive what their turns do, and end."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from inferbus_worker.chat import Usage
from inferbus_worker.engines.base import ChatCall
from inferbus_worker.flow.job import Job
from inferbus_worker.flow.worker_pool import WorkerPool
from inferbus_worker.state.memory.sessions import MemorySessions
from support.rooms import NOTHING, Chunk, Rooms
from support.waiting import until


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


def test_it_runs_as_many_as_it_has_threads(rooms: Rooms) -> None:
    together = threading.Barrier(4)

    def script(_call: ChatCall) -> Iterator[Chunk]:
        together.wait(10)
        yield Chunk("x", finish_reason="stop", usage=Usage(1, 1))

    rooms.engine.script = script
    pool = WorkerPool(rooms.queue)
    pool.start(4, rooms.turns.run, rooms.endings.write)
    for number in range(8):
        rooms.ask(f"s{number}")
    until(lambda: rooms.left_behind == NOTHING)
    assert pool.stop(10)
    assert pool.active == 0
    assert {reply.payload for reply in rooms.sent()} == {b"x"}


def test_a_turn_that_raises_ends_no_thread(rooms: Rooms) -> None:
    ran: list[Job] = []

    def broken(job: Job) -> None:
        ran.append(job)
        raise RuntimeError("a bug")

    pool = WorkerPool(rooms.queue)
    pool.start(1, broken, rooms.endings.write)
    for number in range(3):
        rooms.ask(f"s{number}")
    until(lambda: len(ran) == 3)
    assert pool.stop(10)
    assert pool.active == 0


class PanicError(BaseException):
    """What a library in Rust raises when it gives up: no `Exception`."""


@pytest.mark.parametrize("error", [RuntimeError("a bug"), PanicError(), SystemExit(3)])
def test_whatever_a_turn_raises_its_request_ends(rooms: Rooms, error: BaseException) -> None:
    """A turn that raised before it began once left its request open, and its session busy, for ever."""

    def broken(_job: Job) -> None:
        raise error

    pool = WorkerPool(rooms.queue)
    pool.start(1, broken, rooms.endings.write)
    for number in range(3):
        rooms.ask(f"s{number}")
    until(lambda: rooms.left_behind == NOTHING)
    assert pool.stop(10)
    assert [message.status for message in rooms.sent()] == ["engine_error"] * 3


def test_a_job_whose_end_fails_half_way_ends_all_the_same(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history cannot take the answer: the session is free, and the requester hears of it."""

    def full(*_: object) -> bool:
        raise MemoryError

    monkeypatch.setattr(MemorySessions, "commit", full)
    pool = WorkerPool(rooms.queue)
    pool.start(1, rooms.turns.run, rooms.endings.write)
    rooms.ask()
    until(lambda: rooms.left_behind == NOTHING)
    assert pool.stop(10)
    assert [message.status for message in rooms.sent()] == ["ok"]


def test_stop_says_when_a_turn_does_not_end(rooms: Rooms) -> None:
    begun, done = threading.Event(), threading.Event()

    def stuck(_job: Job) -> None:
        begun.set()
        done.wait(30)

    pool = WorkerPool(rooms.queue)
    pool.start(2, stuck, rooms.endings.write)
    rooms.ask()
    assert begun.wait(10)
    assert pool.active == 1
    assert not pool.stop(0.05)
    done.set()
    until(lambda: pool.active == 0)


def test_it_can_be_stopped_before_it_was_started(rooms: Rooms) -> None:
    assert WorkerPool(rooms.queue).stop(1)


def test_its_threads_have_names(rooms: Rooms) -> None:
    pool = WorkerPool(rooms.queue)
    pool.start(2, rooms.turns.run, rooms.endings.write)
    names = {thread.name for thread in threading.enumerate()}
    assert pool.stop(10)
    assert {"worker-0", "worker-1"} <= names
