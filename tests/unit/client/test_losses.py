"""Lost connections: how long to wait, and when somebody else seems to have our id."""

from __future__ import annotations

import pytest

from inferbus_client.mqtt.losses import Losses, may_be_about_a_packet
from support.rooms import FakeClock

UNEXPLAINED = "Unspecified error"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def losses(clock: FakeClock) -> Losses:
    return Losses(clock=clock)


def test_a_first_loss_is_repaired_at_once_and_later_ones_with_more_patience(losses: Losses) -> None:
    delays = []
    for _ in range(8):
        losses.note(UNEXPLAINED, suspicious=True)
        delays.append(losses.delay)
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (0.25, 5.0)
    losses.forget()
    assert losses.delay == 0.25


def test_patience_ends_when_the_connection_has_held(losses: Losses, clock: FakeClock) -> None:
    for _ in range(8):
        losses.note("Server busy", suspicious=False)
    clock.now += 60
    losses.note("Server busy", suspicious=False)
    assert losses.delay == 0.25


@pytest.mark.parametrize("reason", [UNEXPLAINED, "Session taken over", "Administrative action"])
def test_four_that_nothing_explains_look_like_a_second_client(losses: Losses, clock: FakeClock, reason: str) -> None:
    for number in range(4):
        assert not losses.are_flapping, number
        clock.now += 3
        losses.note(reason, suspicious=False)
    assert losses.are_flapping


@pytest.mark.parametrize(
    ("reason", "suspicious"), [(UNEXPLAINED, True), ("Server shutting down", False), ("Keep alive timeout", False)]
)
def test_those_that_something_explains_never_look_like_a_second_client(
    losses: Losses,
    reason: str,
    suspicious: bool,  # noqa: FBT001
) -> None:
    for _ in range(20):
        losses.note(reason, suspicious=suspicious)
    assert not losses.are_flapping


def test_slow_ones_and_those_of_a_broker_that_was_away_never_look_like_a_second_client(
    losses: Losses, clock: FakeClock
) -> None:
    for _ in range(20):
        clock.now += 10
        losses.note(UNEXPLAINED, suspicious=False)
    assert not losses.are_flapping
    for _ in range(20):
        losses.note(UNEXPLAINED, suspicious=False)
        losses.explain()
    assert not losses.are_flapping


@pytest.mark.parametrize(
    ("reason", "may_be"),
    [
        (UNEXPLAINED, True),
        ("Packet too large", True),
        ("Topic name invalid", True),
        ("Session taken over", False),
        ("Server shutting down", False),
    ],
)
def test_what_may_be_about_a_packet(reason: str, may_be: bool) -> None:  # noqa: FBT001
    assert may_be_about_a_packet(reason) == may_be
