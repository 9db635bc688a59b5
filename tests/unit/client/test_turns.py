"""Turns: one at a time in a session, first come first served, and nothing is left of who goes."""

from __future__ import annotations

import gc
import threading
from contextlib import ExitStack
from functools import partial

import pytest

from inferbus_client.exchange.steps import Event, Signal
from inferbus_client.exchange.turns import Place, Turns


def nobody(_event: Event) -> None:
    """Hears nothing."""


def _set(came: threading.Event, _event: Event) -> None:
    came.set()


def test_the_first_has_the_turn_and_the_others_get_it_in_their_order() -> None:
    turns, places, told = Turns(), [Place("s", number) for number in range(3)], list[tuple[int, Event]]()
    with ExitStack() as last:
        with turns.standing(places[0], nobody):
            with turns.standing(places[1], nobody):  # who goes before it has come
                last.enter_context(turns.standing(places[2], lambda event: told.append((2, event))))
                assert [turns.has_come(place) for place in places] == [True, False, False]
            assert told == []
        assert (turns.has_come(places[2]), told) == (True, [(2, Signal.TURN)])
    assert (dict(turns._first), turns._lines) == ({}, {})


def test_sessions_have_lines_of_their_own_and_what_has_no_session_needs_none() -> None:
    turns, places = Turns(), [Place("a", 1), Place("b", 1), Place(None, 1), Place(None, 1)]
    with ExitStack() as standing:
        for place in places:
            standing.enter_context(turns.standing(place, nobody))
        assert all(turns.has_come(place) and not turns.is_waiting_for_itself(place) for place in places)


def test_who_waits_for_a_turn_that_is_his_own_is_known() -> None:
    turns, reading = Turns(), Place("s", "me")
    mine, anothers = Place("s", "me"), Place("s", "another")
    with turns.standing(reading, nobody), turns.standing(mine, nobody), turns.standing(anothers, nobody):
        assert [turns.is_waiting_for_itself(place) for place in (reading, mine, anothers)] == [False, True, False]
        reading.caller = "another"  # it was handed on
        assert [turns.is_waiting_for_itself(place) for place in (reading, mine, anothers)] == [False, False, True]


def test_one_who_never_got_to_leave_holds_nobody_up() -> None:
    """As when an interrupt comes with the very last step."""
    turns, lost = Turns(), Place("s", 1)
    turns.standing(lost, nobody).__enter__()
    del lost
    gc.collect()
    told = list[Event]()
    place = Place("s", 2)
    with turns.standing(place, told.append):
        assert turns.has_come(place)
    assert told == [Signal.TURN]


@pytest.mark.parametrize("rounds", [300])
def test_from_many_threads_never_two_at_once(rounds: int) -> None:
    turns, inside, most = Turns(), list[int](), list[int]()

    def visit(number: int) -> None:
        for _ in range(rounds):
            came = threading.Event()
            with turns.standing(Place("s", number), partial(_set, came)):
                assert came.wait(30)
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (max(most), len(most), turns._lines) == (1, 8 * rounds, {})
