"""Acknowledge after reply: each message once, behind its reply, and never in the place of another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inferbus_client.mqtt.message import Incoming
from inferbus_worker.bus.acknowledgements import Acknowledgements
from inferbus_worker.bus.attempts import Attempts


def message(ack_id: int, payload: bytes = b"x", *, dup: bool = False, qos: int = 1) -> Incoming:
    return Incoming("p/user_input", payload, qos=qos, dup=dup, ack_id=ack_id)


class Desk:
    """A worker's desk; `told` are the identifiers that the broker was told, over all of its runs."""

    def __init__(self, file: Path) -> None:
        self.told: list[int] = []
        self._file = file
        self._open()

    def _open(self) -> None:
        self.attempts = Attempts(self._file)
        self.desk = Acknowledgements(self.told.append, attempts=self.attempts, max_attempts=3)

    def die(self) -> None:
        """The worker dies, and comes back."""
        self.desk.close()
        self._open()

    def answered(self, asked: Incoming) -> None:
        self.desk.answered(self.desk.receipt_of(asked))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "attempts.sqlite")
    yield desk
    desk.desk.close()


def test_acknowledged_once_and_at_the_end(desk: Desk) -> None:
    asked = message(1)
    assert desk.desk.note(asked)
    assert desk.told == []
    receipt = desk.desk.receipt_of(asked)
    desk.desk.answered(receipt)
    desk.desk.answered(receipt)
    assert desk.told == [1]
    assert len(desk.desk) == 0


def test_qos_0_has_nothing_to_acknowledge(desk: Desk) -> None:
    asked = message(0, qos=0)
    assert desk.desk.note(asked)
    assert desk.desk.receipt_of(asked) is None
    desk.answered(asked)
    assert desk.told == []


def test_a_redelivery_of_what_is_under_way_is_known(desk: Desk) -> None:
    desk.desk.note(message(1))
    assert desk.desk.needs_nothing(message(1, dup=True))
    assert not desk.desk.needs_nothing(message(2, dup=True))
    assert desk.told == []


def test_a_redelivery_of_what_has_ended_is_new(desk: Desk) -> None:
    """Its acknowledgement was lost with the connection, and perhaps its reply too."""
    first, again = message(1), message(1, dup=True)
    desk.desk.note(first)
    desk.desk.answered(desk.desk.receipt_of(first), arrived=False)
    assert not desk.desk.needs_nothing(again)
    assert desk.desk.was_handled(again)
    assert desk.desk.note(again)
    desk.answered(again)
    assert desk.told == [1, 1]


def test_an_identifier_given_away_again_is_the_new_ones(desk: Desk) -> None:
    """A broker without persistence came back, and knows nothing of the message that still runs."""
    desk.desk.note(message(1, b"old"))
    old = desk.desk.receipt_of(message(1, b"old"))
    desk.desk.note(message(1, b"new"))
    desk.desk.answered(old)
    assert desk.told == []
    desk.answered(message(1, b"new"))
    assert desk.told == [1]


def test_what_crashes_its_worker_again_and_again_is_set_aside(desk: Desk) -> None:
    verdicts = []
    for _ in range(3):
        again = message(1, b"poison", dup=True)
        verdicts.append(desk.desk.note(again))
        desk.desk.turn_begins(desk.desk.receipt_of(again))
        desk.die()
    assert verdicts == [True, True, False]
    assert desk.told == []


def test_equal_messages_have_each_their_own_count(desk: Desk) -> None:
    """Many ask just the same, and one crash of the worker that ran them all once set them aside."""
    asked = [message(number, b"status?", dup=True) for number in range(1, 901)]
    assert [desk.desk.note(again) for again in asked] == [True] * 900
    for again in asked[:64]:
        desk.desk.turn_begins(desk.desk.receipt_of(again))
    desk.die()
    assert [desk.desk.note(again) for again in asked] == [True] * 900


def test_qos_2_is_settled_by_the_link_itself(desk: Desk) -> None:
    asked = message(1, qos=2)
    assert desk.desk.note(asked)
    desk.answered(asked)
    assert desk.told == []
