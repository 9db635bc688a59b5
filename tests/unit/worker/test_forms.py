"""Answers in a given form take up their share of the workers and no more, and one that never begins is noticed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from inferbus_worker.engines.base import ChatCall, FirstTokenTimeoutError
from inferbus_worker.settings.projects import ProjectSettings
from support.rooms import NOTHING, Chunk, Rooms, Script, answer, replies, texts

pytestmark = pytest.mark.usefixtures("state")

FORM: dict[str, Any] = {"params": {"response_format": {"type": "json_object"}}}
PLAIN_FORM: dict[str, Any] = {"params": {"response_format": {"type": "text"}}}


def rooms(slots: int = 8, script: Script | None = None, **settings: Any) -> Rooms:
    made = Rooms(script=script, projects={"general": ProjectSettings(response_format=True)}, **settings)
    made.pool.size = slots
    return made


@pytest.mark.parametrize(
    ("slots", "share", "taken"), [(8, 0.5, 4), (8, 0.25, 2), (8, 0.999, 7), (2, 0.5, 1), (1, 0.5, 1), (8, 0.01, 1)]
)
def test_no_more_of_them_are_taken_than_their_share(slots: int, share: float, taken: int) -> None:
    crowded = rooms(slots, form_share=share)
    for number in range(taken):
        assert crowded.ask(f"form-{number}", **FORM) == []
    (refused,) = replies(crowded.ask("one-too-many", reply="json", **FORM))
    assert (refused["type"], refused["code"], refused["retryable"]) == ("error", "overloaded", True)
    assert refused["retryAfterMs"] >= 1000
    assert "given form" in refused["message"]
    assert crowded.left_behind["in flight"] == taken


def test_others_are_taken_meanwhile() -> None:
    crowded = rooms(form_share=0.25)
    for number in range(3):
        crowded.ask(f"form-{number}", **FORM)
    assert crowded.ask("plain") == []
    assert crowded.ask("also-plain", **PLAIN_FORM) == []


def test_one_that_ends_makes_room_for_the_next() -> None:
    crowded = rooms(2)
    for _ in range(3):
        assert texts(crowded.answer("again", **FORM)) == ["fine"]
    crowded.ask("cancelled", **FORM)
    crowded.receive("general/cancel/cancelled")
    assert texts(crowded.answer("after", **FORM)) == ["fine"]
    assert crowded.left_behind == NOTHING
    assert crowded.forms() == 0


def test_with_all_of_the_workers_as_their_share_they_wait_as_others_do() -> None:
    patient = rooms(2, form_share=1)
    for number in range(20):
        assert patient.ask(f"form-{number}", **FORM) == []
    assert len(patient.work()) == 20


def test_the_engine_hears_when_the_first_token_must_have_come() -> None:
    asked = rooms(form_timeout="7s")
    asked.answer("a", **FORM)
    asked.answer("b", **PLAIN_FORM)
    asked.answer("c")
    assert [call.first_token_within for call in asked.engine.calls] == [7.0, None, None]
    assert [call.has_form for call in asked.engine.calls] == [True, False, False]


def never(_call: ChatCall) -> Iterator[Chunk]:
    yield from ()
    raise FirstTokenTimeoutError(20)


def begun(_call: ChatCall) -> Iterator[Chunk]:
    yield Chunk()
    raise FirstTokenTimeoutError(20)


def test_one_that_does_not_begin_is_a_deadline_and_counts_as_given_up() -> None:
    silent = rooms(script=never)
    (reply,) = replies(silent.answer(reply="json", **FORM)[1:])
    assert (reply["type"], reply["code"]) == ("error", "deadline_exceeded")
    assert "did not begin" in reply["message"]
    assert silent.slot.forms_given_up == 1


def test_one_that_is_cancelled_before_it_begins_counts_as_given_up() -> None:
    silent = rooms()

    def cancelled(_call: ChatCall) -> Iterator[Chunk]:
        silent.receive("general/cancel/s1")
        yield Chunk("too late")

    silent.engine.script = cancelled
    silent.answer(**FORM)
    assert silent.slot.forms_given_up == 1


def test_what_never_ran_or_has_begun_or_has_no_form_does_not_count_as_given_up() -> None:
    lively = rooms(script=begun)
    lively.answer("begun", **FORM)
    lively.ask("queued", **FORM)
    lively.receive("general/cancel/queued")
    lively.engine.script = never
    lively.answer("plain")
    lively.engine.script = answer("fine")
    lively.answer("well", **FORM)
    assert lively.slot.forms_given_up == 0


def test_the_bounds_of_a_schema_are_refused_at_the_door() -> None:
    schema = {"type": "string", "pattern": "(" * 20_000 + ")" * 20_000}
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    guarded = rooms()
    (refusal,) = texts(guarded.ask(params=json.loads(json.dumps({"response_format": shape}))))
    assert refusal == ("Error: Invalid request. params.response_format: has a pattern of more than 512 characters.")
    assert guarded.left_behind == NOTHING
