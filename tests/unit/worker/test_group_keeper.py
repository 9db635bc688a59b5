"""What a worker of a group holds, and what it does about it: renews, gives back, ends, and lets the store forget."""

from __future__ import annotations

import pytest

from inferbus_client.contract.wire import Failure
from inferbus_worker.group.holdings import Holdings, Over
from inferbus_worker.replies.address import Owed
from inferbus_worker.state.redis.group import Taken
from support.rooms import NOTHING, Rooms, replies, texts
from support.shared import Shared


def taken(job: str = "j", token: str = "t") -> Taken:  # noqa: S107 - no secret
    return Taken(job, token, 0, b"", None, 0, 0.0, None, None, is_poison=False)


class TestHoldings:
    """The store forgets a job when its reply has left and its history is written, whichever comes first."""

    OWED = Owed("j", "t")

    def test_without_a_history_when_the_reply_has_left(self) -> None:
        held = Holdings(10.0)
        held.add(taken(), None)
        held.ended("j", is_writing=False)
        assert held.left(self.OWED) == Over("j", "t", is_written=False)
        assert len(held) == 0
        assert held.left(self.OWED) is None

    @pytest.mark.parametrize("reply_first", [True, False])
    def test_with_one_when_both_are_done(self, *, reply_first: bool) -> None:
        held = Holdings(10.0)
        held.add(taken(), None)
        held.ended("j", is_writing=True)
        first, second = (held.left, held.written) if reply_first else (held.written, held.left)
        assert first(self.OWED) is None
        assert held.all() == [self.OWED]
        assert second(self.OWED) == Over("j", "t", is_written=True)

    def test_not_by_another_token(self) -> None:
        held = Holdings(10.0)
        held.add(taken("j", "later"), None)
        assert held.left(self.OWED) is None
        assert held.written(self.OWED) is None
        assert held.all() == [Owed("j", "later")]


@pytest.mark.usefixtures("in_groups")
class TestKeeper:
    def shared(self, rooms: Rooms) -> Shared:
        assert rooms.shared is not None
        return rooms.shared

    def two(self) -> tuple[Rooms, Rooms]:
        first = Rooms(worker_id="a")
        return first, Rooms(worker_id="b", beside=first)

    def tend(self, rooms: Rooms, seconds: float) -> None:
        """Let its thread do what it does in that time, ten times a second."""
        for _ in range(round(seconds * 10)):
            rooms.clock.pass_(0.1)
            self.shared(rooms).membership.keeper._tend(rooms.clock())

    def test_what_it_keeps_nobody_else_takes(self) -> None:
        a, b = self.two()
        a.ask()
        job = a.take()
        for _ in range(30):
            self.tend(a, 1)
            self.shared(b).look()
        assert b.work() == []
        a.turns.run(job)
        assert texts(a.sent()) == ["fine"]

    def test_after_a_stall_of_the_store_nobody_s_live_work_is_taken(self) -> None:
        a, b = self.two()
        a.ask()
        job = a.take()
        for rooms in (a, b):
            self.shared(rooms).courier.is_away = True
        a.clock.pass_(60)
        for rooms in (b, a):
            self.shared(rooms).courier.comes_back()
        self.tend(b, 1)  # the first thing that b looks for, and it waits for a lease until it does
        self.tend(a, 1)
        self.tend(b, 3)
        assert b.work() == []
        a.turns.run(job)
        assert texts(a.sent()) == ["fine"]

    @pytest.mark.parametrize("seconds", [60, -60])
    def test_after_a_jump_of_the_store_s_clock_nobody_s_live_work_is_taken(
        self, seconds: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        a, b = self.two()
        a.ask()
        job = a.take()
        for rooms in (a, b) * 10:
            self.tend(rooms, 1)
        for rooms in (a, b):
            self.shared(rooms).courier.ahead = seconds
        self.tend(b, 2)  # it would reap each second
        self.tend(a, 1)
        self.tend(b, 3)
        assert b.work() == []
        a.turns.run(job)
        assert texts(a.sent()) == ["fine"]
        (said,) = {record.getMessage() for record in caplog.records if "jumped" in record.getMessage()}
        assert said.startswith(f"the store's clock has jumped by {seconds:+.0f} s")

    def test_what_a_worker_had_that_died_before_such_a_jump_another_one_runs(self) -> None:
        a, b = self.two()
        a.ask()
        a.take()
        self.tend(b, 5)
        for rooms in (a, b):
            self.shared(rooms).courier.ahead = 60
        self.tend(b, 12)
        assert texts(b.work()) == ["fine"]

    def test_without_a_broker_it_gives_its_jobs_back_and_takes_none_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        a, b = self.two()
        a.ask()
        job = a.take()
        monkeypatch.setattr(self.shared(a).membership.keeper, "_has_broker", lambda: False)
        self.tend(a, 1)
        assert b.work() == []  # it may be back at any moment
        self.tend(a, 2)
        assert texts(b.work()) == ["fine"]
        a.turns.run(job)
        assert a.sent() == []
        assert b.left_behind == NOTHING

    def test_a_deadline_that_passes_in_the_store_ends_it_without_a_slot(self) -> None:
        a, b = self.two()
        a.ask(reply="json", deadlineMs=2000)
        self.tend(b, 1.5)
        assert b.sent() == []
        self.tend(b, 1)
        (error,) = replies(b.sent())
        assert (error["code"], error["seq"]) == ("deadline_exceeded", 1)
        assert a.left_behind == NOTHING

    def test_what_another_worker_will_serve_waits_for_it(self) -> None:
        a, b = self.two()
        b.slot.state = "starting"
        self.shared(b).beat()
        a.ask()
        a.slot.state = "down"
        self.tend(a, 2)
        assert a.sent() == []
        assert a.ask("another") == []  # nor is it refused at the door
        b.slot.became_ready()
        assert len(b.work()) == 2

    def test_what_waits_outlives_an_engine_that_takes_its_worker_with_it(self) -> None:
        a, _ = self.two()
        a.ask()
        a.slot.state = "dead"
        self.tend(a, 5)
        assert a.sent() == []
        self.shared(a).courier.post(self.shared(a).membership.group.leave())
        assert texts(Rooms(worker_id="a", beside=a).work()) == ["fine"]

    def test_what_nobody_will_serve_ends(self) -> None:
        a, b = self.two()
        a.ask()
        for rooms in (a, b):
            rooms.slot.state = "down"
            self.shared(rooms).beat()
        self.tend(b, 1)
        assert texts(b.sent()) == [Failure("engine_unavailable").sentence]
        assert a.left_behind == NOTHING
