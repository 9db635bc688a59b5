"""Where what was said cannot be taken back: another run goes on with it, or is no answer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferbus_client.contract.wire import Delta
from inferbus_client.errors import AnswerChangedError
from inferbus_client.exchange.answer import Restarted
from inferbus_client.exchange.rejoining import Rejoining, rejoined

Parts = list[Delta | Restarted]
AGAIN = Restarted(1, "gpu-2")


def said(text: str = "", **more: Any) -> Delta:
    return Delta(request_id="r", session_id="s", seq=0, text=text, **more)


def test_one_run_is_handed_on_as_it_is() -> None:
    parts: Parts = [said("Hel", reasoning="hm"), said(), said("lo")]
    assert list(rejoined(parts)) == parts


def test_what_was_said_is_not_said_again() -> None:
    parts: Parts = [said("one "), said("two "), AGAIN, said("on"), said("e two thr"), said("ee")]
    assert [delta.text for delta in rejoined(parts)] == ["one ", "two ", "thr", "ee"]


def test_another_answer_is_no_answer() -> None:
    parts = rejoined([said("one "), said("two "), AGAIN, said("one "), said("more")])
    assert [next(parts).text, next(parts).text] == ["one ", "two "]
    with pytest.raises(AnswerChangedError) as caught:
        next(parts)
    assert caught.value.run == 1


def test_a_shorter_answer_is_another_one() -> None:
    with pytest.raises(AnswerChangedError):
        list(rejoined([said("one two"), AGAIN, said("one")]))


def test_thoughts_are_gone_on_with_too() -> None:
    parts: Parts = [said(reasoning="hm, "), AGAIN, said(reasoning="hm, well"), said("yes")]
    assert [(delta.reasoning, delta.text) for delta in rejoined(parts)] == [("hm, ", ""), ("well", ""), (None, "yes")]


def test_a_third_run_repeats_all_that_was_said() -> None:
    parts: Parts = [said("one "), AGAIN, said("one two "), Restarted(2), said("one two three")]
    assert "".join(delta.text for delta in rejoined(parts)) == "one two three"


def test_a_call_that_has_begun_cannot_be_begun_again() -> None:
    rejoining = Rejoining()
    rejoining.new(said(tool_calls=[{"index": 0, "id": "call-1", "function": {"name": "add"}}]))
    with pytest.raises(AnswerChangedError):
        rejoining.new(AGAIN)


@given(st.text(max_size=20), st.lists(st.integers(0, 20), max_size=6), st.lists(st.integers(0, 20), max_size=6))
def test_the_same_answer_is_said_once_however_it_is_cut(whole: str, first: list[int], second: list[int]) -> None:
    def cut(text: str, at: list[int]) -> list[Delta]:
        bounds = [0, *sorted(min(place, len(text)) for place in at), len(text)]
        return [said(text[begin:end]) for begin, end in pairwise(bounds)]

    parts: Parts = [*cut(whole, first)[:-1], AGAIN, *cut(whole, second)]
    assert "".join(delta.text for delta in rejoined(parts)) == whole
