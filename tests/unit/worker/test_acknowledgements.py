"""Acknowledge after reply: each message once, behind its reply, and never in the place of another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inferbus_client.link_options import Incoming
from inferbus_worker.acknowledgements import Acknowledgements, Attempts


def message(ack_id: int, payload: bytes = b"x", *, dup: bool = False, qos: int = 1) -> Incoming:
    return Incoming("p/user_input", payload, qos=qos, dup=dup, ack_id=ack_id)


class Desk:
    def __init__(self, file: Path) -> None:
        self.told: list[Incoming] = []
        self.attempts = Attempts(file)
        self.desk = Acknowledgements(self.told.append, attempts=self.attempts, max_attempts=3)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "attempts.sqlite")
    yield desk
    desk.desk.close()


def test_acknowledged_once_and_at_the_end(desk: Desk) -> None:
    asked = message(1)
    assert desk.desk.begin(asked)
    assert desk.told == []
    desk.desk.end(asked)
    desk.desk.end(asked)
    assert desk.told == [asked]
    assert len(desk.desk) == 0


def test_qos_0_has_nothing_to_acknowledge(desk: Desk) -> None:
    asked = message(0, qos=0)
    assert desk.desk.begin(asked)
    desk.desk.end(asked)
    assert desk.told == []


def test_a_redelivery_of_what_is_under_way_is_known(desk: Desk) -> None:
    desk.desk.begin(message(1))
    assert desk.desk.is_under_way(message(1, dup=True))
    assert not desk.desk.is_under_way(message(2, dup=True))


def test_a_redelivery_of_what_has_ended_is_new(desk: Desk) -> None:
    """Its acknowledgement was lost with the connection, and perhaps its reply too."""
    first, again = message(1), message(1, dup=True)
    desk.desk.begin(first)
    desk.desk.end(first)
    assert not desk.desk.is_under_way(again)
    assert desk.desk.begin(again)
    desk.desk.end(again)
    assert desk.told == [first, again]


def test_an_identifier_given_away_again_is_the_new_ones(desk: Desk) -> None:
    """A broker without persistence came back, and knows nothing of the message that still runs."""
    old, new = message(1, b"old"), message(1, b"new")
    desk.desk.begin(old)
    desk.desk.begin(new)
    desk.desk.end(old)
    assert desk.told == []
    desk.desk.end(new)
    assert desk.told == [new]


def test_what_crashes_its_worker_again_and_again_is_set_aside(desk: Desk) -> None:
    verdicts = []
    for _ in range(3):
        again = message(1, b"poison", dup=True)
        verdicts.append(desk.desk.begin(again))
        desk.desk.turn_begins(again)
        desk.desk = Acknowledgements(desk.told.append, attempts=desk.attempts, max_attempts=3)  # the worker has died
    assert verdicts == [True, True, False]
    assert desk.told == []
