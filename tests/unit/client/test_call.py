"""Calls: what travels, and what is refused before it travels."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from inferbus_client.contract.wire import Request, decode_request
from inferbus_client.errors import InvalidRequestError
from inferbus_client.exchange.call import Addresses, cancel_payload

ADDRESSES = Addresses("general", "me")


def test_a_request_says_who_asks_and_where_the_answer_goes() -> None:
    call = ADDRESSES.request("hello", "s1", stream=True, temperature=0, max_tokens=5)
    request = decode_request(call.payload(deadline_ms=1500))
    assert isinstance(request, Request)
    assert (call.topic, call.cancel_topic) == ("general/user_input/s1", "general/cancel/s1")
    assert request.reply_topic == call.reply_topic == "general/assistant_response/s1/me"
    assert (request.session_id, request.client_id, request.request_id) == ("s1", "me", call.request_id)
    assert (request.wants_json, request.stream, request.deadline_ms) == (True, True, 1500)
    assert (request.temperature, request.max_tokens, request.top_p) == (0, 5, None)


def test_every_request_has_an_id_of_its_own_from_any_thread() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: ADDRESSES.reset("s").request_id, range(2000)))
    assert len(set(ids)) == 2000


def test_an_own_request_id_is_kept() -> None:
    assert ADDRESSES.request("hello", "s1", stream=False, request_id="mine").request_id == "mine"


def test_a_whole_conversation_waits_for_no_turn() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    call = ADDRESSES.request(None, "s1", stream=False, messages=messages)
    request = decode_request(call.payload(deadline_ms=1500))
    assert isinstance(request, Request)
    assert [one.as_openai() for one in request.messages or ()] == messages
    assert (call.session, call.line, call.cancel_topic) == ("s1", None, "general/cancel/s1")
    assert ADDRESSES.request("hello", "s1", stream=False).line == ADDRESSES.reset("s1").line == "s1"


def test_reset_and_new_session() -> None:
    reset = json.loads(ADDRESSES.reset("s1").payload(1000))
    assert (reset["reset"], reset["reply"]) == (True, "json")
    fresh = ADDRESSES.new_session()
    assert (fresh.topic, fresh.reply_topic, fresh.session) == ("general/session", "general/session/response/me", None)


def test_cancel_names_one_request_or_none() -> None:
    assert json.loads(cancel_payload("r1")) == {"requestId": "r1"}
    assert cancel_payload(None) == b""


@pytest.mark.parametrize("session", ["a/b", "+", "#", "$SYS", "", "x" * 129, "\ud800", "a b"])
def test_no_odd_session_reaches_a_topic(session: str) -> None:
    with pytest.raises(InvalidRequestError):
        ADDRESSES.request("hello", session, stream=False)


@pytest.mark.parametrize(
    ("message", "options", "what"),
    [
        ("  ", {}, "blank"),
        ("hello", {"temperature": 3}, "temperature"),
        ("hello", {"params": {"n": 1000}}, "n"),
        ("lone \ud800 surrogate", {}, "surrogate"),
        ("hello", {"params": {"seed": object()}}, "JSON"),
    ],
)
def test_what_the_worker_would_refuse_is_refused_here(message: str, options: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidRequestError, match=what):
        ADDRESSES.request(message, "s1", stream=False, **options)
