"""Suspicion: which packet made the broker close the connection, told by what was on its way."""

from __future__ import annotations

import pytest

from inferbus_client.mqtt.suspicion import MEMORY, NOTHING_FOUND, Finding, Parcel, Suspicion
from support.rooms import FakeClock

LARGE = Parcel("a", 10_000)
SMALL = Parcel("a", 10)
FILTER = Parcel("a/+", is_filter=True)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def suspicion(clock: FakeClock) -> Suspicion:
    return Suspicion(clock=clock)


def test_with_nothing_on_the_way_there_is_nothing_to_suspect(suspicion: Suspicion) -> None:
    assert suspicion.lost([]) == NOTHING_FOUND
    assert not suspicion.is_alert


@pytest.mark.parametrize("parcel", [LARGE, FILTER], ids=str)
def test_alone_on_the_way_twice_is_guilty(suspicion: Suspicion, parcel: Parcel) -> None:
    assert suspicion.lost([parcel]) == Finding(suspicious=True)
    assert suspicion.suspects(parcel)
    assert suspicion.lost([parcel]) == Finding(suspicious=True, guilty=parcel)
    assert suspicion.refuses(parcel)


def test_in_company_nobody_is_guilty_and_all_go_alone_then(suspicion: Suspicion) -> None:
    others = [Parcel(f"t{number}", 5) for number in range(3)]
    assert suspicion.lost([*others, LARGE]).guilty is None
    assert all(map(suspicion.suspects, [*others, LARGE]))
    for other in others:
        suspicion.acquit(other)
    assert not any(map(suspicion.suspects, others))
    assert suspicion.lost([LARGE]).guilty is None
    assert suspicion.lost([LARGE]).guilty == LARGE


def test_one_loss_may_be_chance_however_many_there_were_before(suspicion: Suspicion) -> None:
    """In a bad network something is always on its way, and alone once there were two losses."""
    for number in range(50):
        parcel = Parcel(f"t{number}", 5)
        assert suspicion.lost([parcel]).guilty is None
        suspicion.acquit(parcel)
        assert not suspicion.refuses(parcel)


def test_what_was_taken_before_is_not_guilty_for_being_on_the_way(suspicion: Suspicion) -> None:
    suspicion.acquit(LARGE)
    for _ in range(50):
        assert suspicion.lost([LARGE]) == Finding(suspicious=True)
        suspicion.acquit(LARGE)
        assert suspicion.lost([LARGE, FILTER]).guilty is None
        suspicion.acquit(FILTER)
        assert not suspicion.suspects(LARGE)


def test_what_was_taken_before_may_be_forbidden_since(suspicion: Suspicion) -> None:
    suspicion.acquit(LARGE)
    assert [suspicion.lost([LARGE]).guilty for _ in range(3)] == [None, None, LARGE]


def test_qos_0_is_on_the_way_for_some_seconds(suspicion: Suspicion, clock: FakeClock) -> None:
    suspicion.wrote("old", 1)
    clock.now += 60
    assert suspicion.lost([]) == NOTHING_FOUND
    suspicion.wrote("new", 1)
    assert suspicion.lost([]).suspicious
    assert suspicion.suspects(Parcel("new", 1))
    assert not suspicion.suspects(Parcel("old", 1))


def test_an_answered_ping_acquits_all_that_was_written_before_it(suspicion: Suspicion) -> None:
    suspicion.wrote("a", 10)
    suspicion.lost([])
    suspicion.wrote("a", 10)
    suspicion.acquit_what_was_written()
    assert not suspicion.suspects(SMALL)
    assert suspicion.suspects(LARGE) is False  # it never was on the way
    assert suspicion.lost([]) == NOTHING_FOUND


def test_who_is_innocent_at_one_size_may_be_guilty_at_a_larger_one(suspicion: Suspicion) -> None:
    suspicion.lost([LARGE])
    suspicion.acquit(SMALL)
    suspicion.lost([LARGE])
    assert not suspicion.suspects(SMALL)
    assert suspicion.suspects(LARGE)


def test_smaller_ones_are_tried_after_a_verdict_until_the_topic_itself_is_guilty(suspicion: Suspicion) -> None:
    suspicion.lost([LARGE])
    suspicion.lost([LARGE])
    assert suspicion.refuses(Parcel("a", 20_000))
    assert not suspicion.refuses(SMALL)
    suspicion.lost([SMALL])
    suspicion.lost([SMALL])
    assert suspicion.refuses(Parcel("a", 1))


def test_where_connections_are_lost_one_after_the_other_everything_unknown_goes_alone(
    suspicion: Suspicion, clock: FakeClock
) -> None:
    suspicion.lost([Parcel("a", 1)])
    assert not suspicion.suspects(Parcel("other", 1))
    clock.now += 30
    suspicion.lost([Parcel("b", 1)])
    assert suspicion.suspects(Parcel("other", 1))
    clock.now += 61
    assert not suspicion.suspects(Parcel("yet another", 1))


def test_topics_that_went_alone_in_vain_with_one_mark_in_common_are_enough(suspicion: Suspicion) -> None:
    for session in ("a.1", "b.2", "c.3", "d.4"):
        suspicion.lost([Parcel(f"p_1/out/{session}", 9)])
    assert suspicion.refuses(Parcel("p_1/out/e.5", 9))
    assert not suspicion.refuses(Parcel("p_1/out/e5", 9))
    assert not suspicion.refuses(Parcel("p/e.5/+", is_filter=True))


def test_a_mark_that_a_taken_topic_has_is_not_the_reason(suspicion: Suspicion) -> None:
    for session in ("a.1", "b.2", "c.3"):
        suspicion.acquit(Parcel("out/x.y", 9))
        suspicion.lost([Parcel(f"out/{session}", 9)])
    assert not suspicion.refuses(Parcel("out/d.4", 9))


def test_two_that_went_alone_in_vain_are_too_few_for_a_mark(suspicion: Suspicion) -> None:
    for session in ("a-1", "b-2"):
        suspicion.lost([Parcel(f"out/{session}", 9)])
    assert not suspicion.refuses(Parcel("out/d-4", 9))


def test_of_two_marks_in_common_neither_is_known_to_be_the_reason(suspicion: Suspicion) -> None:
    for session in ("a-.1", "b-.2", "c-.3"):
        suspicion.lost([Parcel(f"out/{session}", 9)])
    assert not suspicion.refuses(Parcel("out/d.4", 9))
    assert not suspicion.refuses(Parcel("out/d-4", 9))


def test_a_loss_with_nothing_on_the_way_soon_after_shows_the_verdict_to_be_wrong(
    suspicion: Suspicion, clock: FakeClock
) -> None:
    suspicion.lost([LARGE])
    suspicion.lost([LARGE])
    clock.now += 1
    suspicion.lost([])
    assert not suspicion.refuses(LARGE)


def test_everything_is_forgotten_in_time(suspicion: Suspicion, clock: FakeClock) -> None:
    suspicion.lost([LARGE])
    suspicion.lost([LARGE])
    clock.now += MEMORY + 1
    assert not suspicion.refuses(LARGE)
    assert not suspicion.is_alert


def test_what_strangers_make_up_takes_no_memory_without_bound(suspicion: Suspicion) -> None:
    for number in range(5000):
        suspicion.wrote(f"t{number}", 1)
        suspicion.acquit(Parcel(f"u{number}", 1))
        suspicion.lost([Parcel(f"v{number}.", 1)])
    for table in (suspicion._suspects, suspicion._innocent, suspicion._refused):
        assert len(table) <= 1024
