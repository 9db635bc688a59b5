"""The judges of the conformance kit let through what the contract says, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from inferbus_client.conformance.case import Expect, Names, Replies, load_cases
from inferbus_client.conformance.judging import MismatchError, judge_message, judge_replies
from inferbus_client.contract.presence import Presence, Stats
from inferbus_client.contract.wire import Accepted, Delta, Done, ErrorReply, Failure
from inferbus_client.errors import SettingsError
from inferbus_client.mqtt.message import Incoming

NAMES: Final = Names({"request": "r1", "session": "s.1", "home": "general/assistant_response/s.1"})
WHOSE: Final = {"request_id": "r1", "session_id": "s.1"}


def accepted(**other: Any) -> bytes:
    return Accepted(**{**WHOSE, "seq": 0, "queue_position": 0, **other}).encode()


def delta(seq: int, text: str, run: int = 0) -> bytes:
    return Delta(**WHOSE, seq=seq, text=text, run=run).encode()


def done(seq: int, text: str = "Hello", **other: Any) -> bytes:
    return Done(**{**WHOSE, "seq": seq, "text": text, **other}).encode()


def refused(seq: int = 0) -> bytes:
    return ErrorReply.of(
        Failure("rate_limited", retry_after_ms=70), request_id="r1", session_id="s.1", seq=seq
    ).encode()


def judge(types: str, *payloads: bytes, **last: Any) -> None:
    judge_replies(payloads, Replies(request="{request}", types=types, last=last), NAMES)


STREAM: Final = "accepted( delta)* done"


def test_what_the_contract_says_is_let_through() -> None:
    judge("accepted done", accepted(), done(1), text="~H.*o", sessionId="{session}", usage=None)
    judge(STREAM, accepted(), delta(1, "Hel"), delta(2, "lo"), done(3))
    judge("error", refused(), code="rate_limited", retryAfterMs=70, message="~Error: Rate.*")


def test_a_group_of_workers_may_begin_anew_and_accept_late() -> None:
    again = (accepted(run=1, worker="gpu-2"), delta(1, "Hello", run=1), done(2, run=1))
    judge(STREAM, accepted(worker="gpu-1"), delta(1, "Hol"), *again)
    judge(STREAM, delta(1, "Hel"), accepted(worker="gpu-1"), delta(2, "lo"), done(3))
    with pytest.raises(MismatchError, match="seq counts"):
        judge("delta accepted delta done", delta(1, "Hel"), accepted(), delta(2, "lo"), done(3))


@pytest.mark.parametrize(
    ("payloads", "words"),
    [
        ((accepted(), b"Hello"), "not a JSON reply"),
        ((done(0),), "had to be"),
        ((accepted(), done(2)), "seq counts 0, 2"),
        ((accepted(), done(1, request_id="r2")), "more than one request"),
        ((accepted(request_id="r2"), done(1, request_id="r2")), "name the request 'r2'"),
        ((accepted(), delta(1, "Hel"), done(2)), "what was streamed is not the answer"),
        ((accepted(), refused(1)), "had to be"),
    ],
)
def test_replies_that_break_the_contract_are_not(payloads: tuple[bytes, ...], words: str) -> None:
    with pytest.raises(MismatchError, match=words):
        judge(STREAM, *payloads)


@pytest.mark.parametrize(
    "last", [{"text": "Bye"}, {"text": "~B.*"}, {"nothing": 1}, {"usage": {"promptTokens": 1}}, {"model": None}]
)
def test_a_last_reply_that_lacks_something_is_not(last: dict[str, Any]) -> None:
    with pytest.raises(MismatchError):
        judge("accepted done", accepted(), done(1), **last)


def message(payload: bytes, **more: Any) -> Incoming:
    return Incoming("general/assistant_response/s.1", payload, **more)


def test_a_message_is_judged_by_its_text_and_in_mqtt_5_by_its_properties() -> None:
    expect = Expect(text="Bye .+", properties={"status": "ok", "sessionId": "{session}"}, correlation="of {session}")
    well = message(b"Bye s.1", user_properties=[("status", "ok"), ("sessionId", "s.1")], correlation_data=b"of s.1")
    judge_message(well, expect, NAMES, has_properties=True)
    judge_message(message(b"Bye s.1"), expect, NAMES, has_properties=False)
    for other in (
        well._replace(payload=b"Hi"),
        well._replace(payload=b"\xff"),
        well._replace(user_properties=[]),
        well._replace(correlation_data=b"of s"),
    ):
        with pytest.raises(MismatchError):
            judge_message(other, expect, NAMES, has_properties=True)


def test_names_in_a_pattern_are_no_patterns() -> None:
    with pytest.raises(MismatchError):
        judge_message(message(b"s+1"), Expect(text="{session}"), NAMES, has_properties=False)
    judge_message(message(b"s.1"), Expect(text="{session}"), NAMES, has_properties=False)


def test_an_announcement_is_one() -> None:
    judge_message(
        message(Presence(worker="w", state="ready").encode()), Expect(says="presence"), NAMES, has_properties=True
    )
    judge_message(message(Stats(worker="w").encode()), Expect(says="stats"), NAMES, has_properties=True)
    with pytest.raises(MismatchError):
        judge_message(message(b"{}"), Expect(says="presence"), NAMES, has_properties=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {name: a, half: text}", r"0\.steps: Field required"),
        ("- {name: a, half: text, steps: [{send: {topic: t}, silence: 1}]}", "one of send, expect"),
        ("- {name: a, half: text, steps: [{expect: {text: '('}}]}", "0.steps.0.expect.text"),
        ("- {name: a, half: text, steps: [{send: {topic: t, retain: true}}]}", "retain"),
        ("- [", "while parsing"),
        ("", "list"),
    ],
)
def test_a_case_that_cannot_be_read_is_told_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SettingsError, match=words) as caught:
        load_cases(tmp_path)
    assert str(tmp_path / "mine.yaml") in str(caught.value)


def test_a_folder_without_cases_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no cases"):
        load_cases(tmp_path)


def test_no_two_cases_have_one_name() -> None:
    names = [case.name for case in load_cases()]
    assert len(names) == len(set(names)) > 30
