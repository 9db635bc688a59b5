"""Who waits for the store: is told once, whatever comes from whichever thread."""

from __future__ import annotations

import pytest

from inferbus_worker.state.errors import StoreAwayError
from inferbus_worker.state.redis.parcels import Letter, Parcel, fail_all, letters_of
from support.couriers import count, refusal


def test_all_answers_are_read_in_the_order_of_the_calls() -> None:
    parcel = Parcel([count(), count()], keeps=False, waits=True)
    parcel.answer(1, b"2")
    refusal(lambda: parcel.wait(0))
    parcel.answer(0, b"1")
    assert parcel.wait(0) == [1, 2]


def test_one_that_fails_fails_all_and_what_comes_later_is_dropped() -> None:
    parcel = Parcel([count(), count()], keeps=False, waits=True)
    parcel.answer(0, b"1")
    fail_all(StoreAwayError("gone"), letters_of(parcel))
    parcel.answer(1, b"2")
    error, _ = refusal(lambda: parcel.wait(0))
    assert error.reason == "gone"


def test_who_has_given_up_is_told_nothing_twice() -> None:
    parcel = Parcel([count()], keeps=False, waits=True)
    with pytest.raises(StoreAwayError, match="has not answered within 0 s"):
        parcel.wait(0)
    for _ in range(2):
        parcel.fail(StoreAwayError("gone"))
    parcel.answer(0, b"1")


def test_an_answer_that_comes_again_is_handed_out_once() -> None:
    heard: list[int] = []
    parcel = Parcel([count()], heard.append, keeps=True, waits=False)
    for _ in range(2):
        parcel.answer(Letter(parcel, 0).number, b"1")
    assert heard == [1]
