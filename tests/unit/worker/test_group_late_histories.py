"""Histories that follow their sessions' records, as in a Cluster: late, again, after another, or not at all."""

from __future__ import annotations

import pytest

from inferbus_client.contract.wire import Failure
from support.in_place import CourierInPlace
from support.rooms import NOTHING, Rooms, texts
from support.shared import Shared

pytestmark = pytest.mark.usefixtures("in_groups")


def shared(rooms: Rooms) -> Shared:
    assert rooms.shared is not None
    return rooms.shared


def courier(rooms: Rooms) -> CourierInPlace:
    return shared(rooms).courier


def two(*, is_spread: bool = True) -> tuple[Rooms, Rooms]:
    first = Rooms(worker_id="a", max_sessions=3)
    second = Rooms(worker_id="b", max_sessions=3, beside=first)
    for rooms in (first, second):
        shared(rooms).membership.group.is_spread = is_spread
    return first, second


def lose_appends(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    """This worker is lost before its histories are written."""
    monkeypatch.setattr(shared(rooms).membership.endings._histories, "_append", lambda *_: None)


def answer(rooms: Rooms, message: str = "hello") -> int:
    """A request and its turn, by whoever had the last one; how many messages the engine got."""
    rooms.ask(message=message)
    rooms.clock.pass_(1)
    assert texts(rooms.work()) == ["fine"]
    return len(rooms.engine.calls[-1].messages)


@pytest.mark.parametrize("is_spread", [True, False])
def test_one_that_is_at_hand_is_not_read_again(is_spread: bool) -> None:  # noqa: FBT001 - drawn
    a, _ = two(is_spread=is_spread)
    assert [answer(a) for _ in range(3)] == [1, 3, 5]
    assert "LRANGE" not in courier(a).asked
    assert ("append" in courier(a).asked) == is_spread


@pytest.mark.parametrize("is_spread", [True, False])
def test_one_that_another_has_written_on_is(is_spread: bool) -> None:  # noqa: FBT001 - drawn
    a, b = two(is_spread=is_spread)
    assert [answer(rooms) for rooms in (a, b, a, a)] == [1, 3, 5, 7]
    assert courier(a).asked.count("LRANGE") == 1


def test_what_was_lost_with_its_worker_the_next_one_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = two()
    answer(a)
    lose_appends(a, monkeypatch)
    assert answer(a) == 3
    assert answer(b) == 5
    a_third = Rooms(worker_id="c", beside=b)
    assert answer(a_third) == 7


def test_a_job_is_not_over_before_its_history_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = two()
    lose_appends(a, monkeypatch)
    answer(a)
    assert len(courier(a).names("job:")) == 1
    a.clock.pass_(11)
    shared(b).look()
    assert texts(b.sent()) == ["fine"]  # the very same, which its requester passes over
    assert courier(b).names("job:") == []
    assert answer(b) == 3


def test_one_that_comes_late_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written twice over: by who made it, and by who found that it was missing."""
    a, b = two()
    answer(a)
    a.ask(message="late")
    histories = shared(a).membership.endings._histories
    append = histories._append
    late: list[tuple[object, ...]] = []
    monkeypatch.setattr(histories, "_append", lambda *said: late.append(said))
    a.clock.pass_(1)
    a.work()
    assert answer(b) == 5
    (said,) = late
    append(*said)  # type: ignore[arg-type]
    assert answer(b) == 7
    assert answer(Rooms(worker_id="c", beside=b)) == 9


def test_a_gap_costs_the_history_and_not_the_session(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = two()
    lose_appends(a, monkeypatch)
    for _ in range(3):
        answer(a)
    assert answer(b) == 1
    assert "a history is lost" in caplog.text
    assert answer(b) == 3
    assert answer(Rooms(worker_id="c", beside=b)) == 5


@pytest.mark.parametrize("is_spread", [True, False])
def test_a_reset_forgets_it_wherever_it_is(is_spread: bool) -> None:  # noqa: FBT001 - drawn
    a, b = two(is_spread=is_spread)
    for rooms in (a, b):
        answer(rooms)
    courier(a).holds = True  # the reset is written in the session's record alone
    assert texts(a.receive("general/user_input/s1", b"")) == ["Conversation reset."]
    assert answer(b) == 1
    courier(a).comes_back()
    assert answer(b) == 3
    assert answer(Rooms(worker_id="c", beside=b)) == 5


@pytest.mark.parametrize("is_spread", [True, False])
def test_of_a_session_that_had_to_go_nothing_is_left(is_spread: bool) -> None:  # noqa: FBT001 - drawn
    a, _ = two(is_spread=is_spread)
    for number in range(10):
        assert texts(a.answer(f"s{number}")) == ["fine"]
        a.clock.pass_(1)
    client = courier(a).store.client
    assert len(client.keys("inferbus:1:history:*")) == 3
    assert len(a.sessions) == 3
    a.answer("s0", "again")
    assert len(a.engine.calls[-1].messages) == 1


class TestAStoreThatIsAway:
    def test_an_outcome_is_written_when_it_is_back(self) -> None:
        a, _ = two(is_spread=False)
        a.ask()
        job = a.take()
        courier(a).is_away = True
        a.turns.run(job)
        assert a.sent() == []
        courier(a).comes_back()
        assert texts(a.sent()) == ["fine"]
        assert a.left_behind == NOTHING

    def test_an_outcome_whose_answer_was_lost_is_said_once(self) -> None:
        a, b = two(is_spread=False)
        a.ask(requestId="r", clientId="c")
        job = a.take()
        courier(a).loses_answers = True
        a.turns.run(job)
        assert a.sent() == []
        courier(a).comes_back()
        assert texts(a.sent()) == ["fine"]
        assert b.left_behind == NOTHING
        assert answer(b) == 3

    def test_who_comes_is_refused_and_has_left_nothing_when_it_is_back(self) -> None:
        a, _ = two()
        courier(a).is_away = True
        away = Failure("engine_unavailable").sentence
        assert [texts(a.ask()), texts(a.receive("general/user_input/s1", b""))] == [[away], [away]]
        courier(a).comes_back()
        assert a.left_behind == NOTHING
        assert answer(a) == 1
