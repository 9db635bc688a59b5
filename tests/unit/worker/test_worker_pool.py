"""N named threads that survive what their turns do, and end."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from inferbus_worker.chat import Usage
from inferbus_worker.engines.base import ChatCall
from inferbus_worker.flow import worker_pool
from inferbus_worker.flow.job import Job
from inferbus_worker.flow.worker_pool import WorkerPool
from inferbus_worker.state.memory.sessions import MemorySessions
from support.rooms import NOTHING, Chunk, Rooms, Script
from support.waiting import until


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


def test_it_runs_as_many_as_it_has_threads(rooms: Rooms) -> None:
    together = threading.Barrier(4)

    def script(_call: ChatCall) -> Iterator[Chunk]:
        together.wait(60)
        yield Chunk("x", finish_reason="stop", usage=Usage(1, 1))

    rooms.engine.script = script
    pool = WorkerPool(rooms.queue)
    pool.start(4, rooms.turns.run, rooms.endings.write)
    said = [message for number in range(8) for message in rooms.ask(f"s{number}")]
    until(lambda: rooms.left_behind == NOTHING)
    assert pool.stop(10)
    assert pool.active == 0
    assert [reply.payload for reply in [*said, *rooms.sent()]] == [b"x"] * 8


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
    said = [message for number in range(3) for message in rooms.ask(f"s{number}")]  # the pool may be quicker than we
    until(lambda: rooms.left_behind == NOTHING)
    assert pool.stop(10)
    assert [message.status for message in [*said, *rooms.sent()]] == ["engine_error"] * 3


def test_a_job_whose_end_fails_half_way_ends_all_the_same(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history cannot take the answer: the session is free, and the requester hears of it."""

    def full(*_: object) -> bool:
        raise MemoryError

    monkeypatch.setattr(MemorySessions, "commit", full)
    pool = WorkerPool(rooms.queue)
    pool.start(1, rooms.turns.run, rooms.endings.write)
    said = rooms.ask()
    until(lambda: rooms.left_behind == NOTHING)
    assert pool.stop(10)
    assert [message.status for message in [*said, *rooms.sent()]] == ["ok"]


def test_stop_says_when_a_turn_does_not_end(rooms: Rooms) -> None:
    begun, done = threading.Event(), threading.Event()

    def stuck(_job: Job) -> None:
        begun.set()
        done.wait(30)

    pool = WorkerPool(rooms.queue)
    pool.start(2, stuck, rooms.endings.write)
    rooms.ask()
    assert begun.wait(60)
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


def answers_after(go_on: threading.Event) -> Script:
    """A script of the engine's by which every turn lasts until then."""

    def script(_call: ChatCall) -> Iterator[Chunk]:
        go_on.wait(60)
        yield Chunk("x", finish_reason="stop", usage=Usage(1, 1))

    return script


class TestGrowing:
    def test_more_come_while_requests_wait_for_nothing_else_and_go_again(self, rooms: Rooms) -> None:
        go_on = threading.Event()
        rooms.engine.script = answers_after(go_on)
        pool = WorkerPool(rooms.queue, idle=0.05)
        pool.start(2, rooms.turns.run, rooms.endings.write, most=lambda: 6)
        for number in range(9):
            rooms.ask(f"s{number}")
        until(lambda: pool.active == 6)
        assert pool.size == 6
        go_on.set()
        until(lambda: pool.size == 2)
        until(lambda: rooms.left_behind == NOTHING)  # the two that stay may still have the last ones in hand
        assert pool.stop(10)

    def test_no_more_come_while_turns_are_long_for_want_of_the_interpreter(
        self, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Forty came, and made it shorter. Whoever looks at the turns wants the interpreter as often as they do."""
        turns, steps = threading.Semaphore(0), itertools.count(1)

        def slow(job: Job) -> None:
            turns.acquire()
            rooms.turns.run(job)

        def step(_seconds: float) -> None:
            """Every third time a turn has had what it needs."""
            job = pool._busy.get(0)
            if job is not None and next(steps) % 3 == 0:
                turns.release()
                until(lambda: pool._busy.get(0) is not job)

        monkeypatch.setattr(worker_pool, "time", SimpleNamespace(sleep=step, monotonic=time.monotonic))
        pool = WorkerPool(rooms.queue)
        pool.start(1, slow, rooms.endings.write, most=lambda: 6)
        for number in range(9):
            rooms.ask(f"s{number}")
        until(lambda: not len(rooms.queue))
        assert pool.size == 1
        turns.release(9)
        until(lambda: rooms.left_behind == NOTHING)
        assert pool.stop(10)

    def test_no_more_come_than_there_are_places(self) -> None:
        go_on = threading.Event()
        rooms = Rooms(script=answers_after(go_on), concurrency=3)
        rooms.slot.concurrency = 3
        rooms.slot.became_ready()
        pool = WorkerPool(rooms.queue)
        pool.start(1, rooms.turns.run, rooms.endings.write, most=lambda: 50)
        for number in range(9):
            rooms.ask(f"s{number}")
        until(lambda: pool.active == 3)
        assert pool.size <= 3
        go_on.set()
        until(lambda: rooms.left_behind == NOTHING)
        assert pool.stop(10)

    def test_those_at_rest_come_when_there_are_places_for_them_and_stay(self, rooms: Rooms) -> None:
        """A model that was ready late once left the worker with the few threads of the first one for good."""
        most = 1
        pool = WorkerPool(rooms.queue, idle=0.05)
        go_on = threading.Event()
        rooms.engine.script = answers_after(go_on)
        pool.start(4, rooms.turns.run, rooms.endings.write, most=lambda: most)
        assert pool.size == 1
        most = 6
        for number in range(6):
            rooms.ask(f"s{number}")
        until(lambda: pool.active == 6)
        go_on.set()
        until(lambda: pool.size == 4)
        assert pool.stop(10)

    def test_where_the_system_gives_no_more_threads_those_that_there_are_go_on(
        self, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The thread that starts others died of it, and the one that could not start was waited for at the end."""
        pool = WorkerPool(rooms.queue)
        pool.start(1, rooms.turns.run, rooms.endings.write, most=lambda: 4)
        started = threading.Thread.start

        def refused(self: threading.Thread) -> None:
            if self.name.startswith("worker-"):
                raise RuntimeError("can't start new thread")
            started(self)

        go_on = threading.Event()
        rooms.engine.script = answers_after(go_on)
        monkeypatch.setattr(threading.Thread, "start", refused)
        for number in range(4):
            rooms.ask(f"s{number}")
        until(lambda: pool.active == 1)
        until(lambda: not pool._short.is_set())
        monkeypatch.undo()
        rooms.queue.look()
        until(lambda: pool.active == 4)
        go_on.set()
        until(lambda: rooms.left_behind == NOTHING)
        assert pool.stop(10)

    def test_what_comes_while_a_thread_leaves_gets_another(self, rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
        """It was still counted, so no other came, and it took nothing any more."""
        pool = WorkerPool(rooms.queue, idle=0.05)
        leaves, go_on, waits = pool._leaves, threading.Event(), threading.Event()

        def slowly(number: int) -> bool:
            if number == 1 and not waits.is_set():
                rooms.ask("late")
                until(lambda: not pool._short.is_set())
                time.sleep(0.05)  # whoever starts threads finds that there are as many as there may be
                waits.set()
            return leaves(number)

        monkeypatch.setattr(pool, "_leaves", slowly)
        rooms.engine.script = answers_after(go_on)
        pool.start(1, rooms.turns.run, rooms.endings.write, most=lambda: 2)
        rooms.ask("long")
        until(lambda: pool.active == 1)
        pool._add()
        until(waits.is_set)
        until(lambda: pool.active == 2)
        go_on.set()
        until(lambda: rooms.left_behind == NOTHING)
        assert pool.stop(10)

    def test_an_error_of_the_queue_ends_no_thread(self, rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
        """The thread that it ended was counted for ever, and what waited had nobody."""
        take, failed = rooms.queue.take, threading.Event()

        def broken(patience: float | None = None) -> Job | None:
            if not failed.is_set():
                failed.set()
                raise MemoryError
            return take(patience)

        monkeypatch.setattr(worker_pool, "_AGAIN", 0.01)
        monkeypatch.setattr(rooms.queue, "take", broken)
        pool = WorkerPool(rooms.queue)
        rooms.ask("s")
        pool.start(1, rooms.turns.run, rooms.endings.write)
        until(lambda: rooms.left_behind == NOTHING)
        assert failed.is_set()
        assert pool.stop(10)

    def test_an_error_while_it_grows_is_not_the_end_of_growing(
        self, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failed, go_on = threading.Event(), threading.Event()

        def broken() -> int:
            failed.set()
            raise MemoryError

        rooms.engine.script = answers_after(go_on)
        pool = WorkerPool(rooms.queue)
        pool.start(1, rooms.turns.run, rooms.endings.write, most=lambda: 2)
        monkeypatch.setattr(rooms.queue, "could_start", broken)
        rooms.ask("one")
        rooms.ask("two")
        until(failed.is_set)
        monkeypatch.undo()
        rooms.queue.look()
        until(lambda: pool.active == 2)
        go_on.set()
        until(lambda: rooms.left_behind == NOTHING)
        assert pool.stop(10)

    def test_a_job_that_goes_again_is_counted_where_it_runs(self, rooms: Rooms) -> None:
        """The thread that gave it back once took it off the other's account."""
        pool = WorkerPool(rooms.queue)
        taken_again, may_leave = threading.Event(), threading.Event()
        turns = 0

        def turn(job: Job) -> None:
            nonlocal turns
            turns += 1
            if turns == 1:
                assert job.lease is not None
                job.lease.end()
                rooms.queue.give_back(job)
                assert taken_again.wait(60)
                return
            taken_again.set()
            may_leave.wait(60)
            rooms.turns.run(job)

        pool.start(2, turn, rooms.endings.write)
        rooms.ask()
        assert taken_again.wait(60)
        until(lambda: len(rooms.queue) == 0 and pool.active == 1)
        may_leave.set()
        until(lambda: pool.active == 0)
        assert pool.stop(10)
