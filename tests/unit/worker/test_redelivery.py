"""With --ack after-reply the broker delivers again what was not acknowledged, or whose acknowledgement was lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferbus_worker.admission.verbs import Verbs
from inferbus_worker.bus.attempts import Attempts
from support.rooms import NOTHING, Rooms, texts

CANCELLED = "Error: Request cancelled."
RESET = "Conversation reset."
REQUEST = "general/user_input/s1"
CANCEL = "general/cancel/s1"


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Rooms]:
    attempts = Attempts(tmp_path / "attempts.sqlite")
    yield Rooms(attempts=attempts)
    attempts.close()


def hear(rooms: Rooms, topic: str, payload: str, ack_id: int, **more: Any) -> list[str]:
    """One message at QoS 1; what is said because of it."""
    return texts(rooms.receive(topic, payload, qos=1, ack_id=ack_id, **more))


def settle(rooms: Rooms, *, arrived: bool = True) -> list[str]:
    """Run what waits; `arrived` says whether the broker has said of the replies that it has them (QoS 1)."""
    said = rooms.work()
    for message in said:
        assert message.address is not None
        rooms.desk.answered(message.address.receipt, arrived=arrived)
    return texts(said)


class TestCancels:
    def test_one_that_has_been_heard_cancels_nothing_later(self, rooms: Rooms) -> None:
        """Its acknowledgement was lost with the connection."""
        hear(rooms, REQUEST, "first", 1)
        assert hear(rooms, CANCEL, "", 2) == [CANCELLED]
        hear(rooms, REQUEST, "second", 3)
        rooms.reception.came_up(remembered=True)
        assert hear(rooms, CANCEL, "", 2, dup=True) == []
        assert hear(rooms, REQUEST, "second", 3, dup=True) == []
        assert settle(rooms) == ["fine"]
        assert rooms.acknowledged == [2, 2, 3]

    def test_one_hits_again_what_comes_again_with_it(self, rooms: Rooms) -> None:
        """The request's acknowledgement was lost as well, and its reply perhaps too."""
        hear(rooms, REQUEST, "first", 1)
        (said,) = rooms.receive(CANCEL, "", qos=1, ack_id=2)
        assert said.address is not None
        rooms.desk.answered(said.address.receipt, arrived=False)
        rooms.reception.came_up(remembered=True)
        assert hear(rooms, REQUEST, "first", 1, dup=True) == []
        assert hear(rooms, CANCEL, "", 2, dup=True) == [CANCELLED]
        assert rooms.left_behind == NOTHING

    def test_one_that_was_lost_on_its_way_is_heard(self, rooms: Rooms) -> None:
        """A duplicate for the broker, which does not know what became of the first; not for us."""
        hear(rooms, REQUEST, "first", 1)
        assert hear(rooms, CANCEL, "", 2, dup=True) == [CANCELLED]

    def test_another_with_its_identifier_is_heard(self, rooms: Rooms) -> None:
        hear(rooms, CANCEL, "", 2)
        hear(rooms, REQUEST, "first", 1)
        assert hear(rooms, CANCEL, "", 2) == [CANCELLED]

    def test_one_with_the_identifier_of_another_session_s_is_heard(self, rooms: Rooms) -> None:
        hear(rooms, REQUEST, "first", 1)
        hear(rooms, "general/cancel/s2", "", 2)
        assert hear(rooms, CANCEL, "", 2, dup=True) == [CANCELLED]

    def test_what_is_remembered_is_bounded(self, rooms: Rooms) -> None:
        for number in range(1, 20_000):
            hear(rooms, CANCEL, "", number)
        assert len(rooms.desk._ended) <= 1024


class TestWhileLoading:
    """Held until the model has loaded, over any number of reconnects."""

    def held(self, rooms: Rooms, *messages: tuple[str, str, int], dup: bool = False) -> None:
        for topic, payload, ack_id in messages:
            assert hear(rooms, topic, payload, ack_id, dup=dup) == []

    def test_each_is_taken_in_once_and_in_its_place(self, rooms: Rooms) -> None:
        rooms.reception.hold()
        messages = ((REQUEST, "first", 1), (CANCEL, "", 2), (REQUEST, "second", 3))
        self.held(rooms, *messages)
        for _ in range(3):
            self.held(rooms, *messages, dup=True)
        rooms.reception.release()
        assert texts(rooms.sent()) == [CANCELLED]
        assert settle(rooms) == ["fine"]
        assert rooms.engine.calls[0].messages[-1]["content"] == "second"
        assert rooms.left_behind == NOTHING

    def test_it_does_not_grow_with_every_reconnect(self, rooms: Rooms) -> None:
        rooms.reception.hold()
        for round_ in range(10):
            self.held(rooms, *((f"general/user_input/s{n}", "hello", n) for n in range(1, 101)), dup=round_ > 0)
        assert len(rooms.reception._held or ()) == 100

    def test_a_cancel_without_acknowledgement_keeps_its_place_too(self, rooms: Rooms) -> None:
        rooms.reception.hold()
        self.held(rooms, (REQUEST, "first", 1))
        assert rooms.receive(CANCEL, "", qos=0) == []
        self.held(rooms, (REQUEST, "second", 2))
        rooms.reception.release()
        assert texts(rooms.sent()) == [CANCELLED]
        assert settle(rooms) == ["fine"]

    def test_no_more_cancels_are_kept_than_there_are_places(self, rooms: Rooms) -> None:
        rooms.reception.hold()
        for _ in range(20_000):
            rooms.receive(CANCEL, "", qos=0)
        assert len(rooms.reception._held or ()) <= 1024

    def test_one_that_cannot_be_handled_costs_no_other_its_turn(
        self, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It once ended the network thread, and with it the worker."""
        rooms.reception.hold()
        self.held(rooms, (CANCEL, "", 1), (REQUEST, "hello", 2))

        def broken(*_: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(Verbs, "_cancel", broken)
        rooms.reception.release()
        assert settle(rooms) == ["fine"]
        assert rooms.acknowledged == [1, 2]


class TestAnswered:
    def test_a_request_whose_reply_has_arrived_is_not_run_again(self, rooms: Rooms) -> None:
        """Only our acknowledgement was lost, and is said again."""
        hear(rooms, REQUEST, "hello", 1)
        settle(rooms)
        assert hear(rooms, REQUEST, "hello", 1, dup=True) == []
        assert settle(rooms) == []
        assert rooms.acknowledged == [1, 1]
        assert len(rooms.engine.calls) == 1

    def test_a_request_whose_reply_may_be_lost_is_run_again(self, rooms: Rooms) -> None:
        """At QoS 0 nobody knows."""
        hear(rooms, REQUEST, "hello", 1)
        settle(rooms, arrived=False)
        hear(rooms, REQUEST, "hello", 1, dup=True)
        assert settle(rooms) == ["fine"]

    def test_a_reset_is_said_again_but_not_done_again(self, rooms: Rooms) -> None:
        """What has been said since stays in the conversation."""
        (said,) = rooms.receive(REQUEST, "", qos=1, ack_id=1)
        assert said.address is not None
        rooms.desk.answered(said.address.receipt, arrived=False)
        hear(rooms, REQUEST, "hello", 2)
        settle(rooms)
        assert hear(rooms, REQUEST, "", 1, dup=True) == [RESET]
        rooms.answer(message="and now?")
        assert len(rooms.engine.calls[-1].messages) == 3


class TestForgotten:
    """A broker without persistence came back: it waits for nothing, and gives the identifiers away again."""

    def test_what_it_forgot_is_answered_and_not_acknowledged(self, rooms: Rooms) -> None:
        hear(rooms, REQUEST, "hello", 1)
        rooms.reception.came_up(remembered=False)
        assert settle(rooms) == ["fine"]
        assert rooms.acknowledged == []

    def test_what_it_forgot_while_it_was_held_is_answered_and_not_acknowledged(self, rooms: Rooms) -> None:
        rooms.reception.hold()
        hear(rooms, REQUEST, "old", 1)
        rooms.reception.came_up(remembered=False)
        hear(rooms, "general/user_input/s2", "new", 1)
        rooms.reception.release()
        assert settle(rooms) == ["fine", "fine"]
        assert rooms.acknowledged == [1]
