"""Every way in which a server fails a request, for each of the eight backends, and which error it is."""

from __future__ import annotations

import math
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pydantic import SecretStr

from inferbus_worker.engines.base import (
    BackendError,
    ChatCall,
    ContextTooLongError,
    EngineError,
    GenerationTimeoutError,
    InvalidCallError,
    Sampling,
)
from inferbus_worker.engines.remote import connections
from inferbus_worker.engines.remote.engine import RemoteEngine, RemotePlace
from inferbus_worker.engines.remote.errors import in_stream, refusal, retry_after
from inferbus_worker.engines.remote.loop import RemoteLoop
from inferbus_worker.settings.models import BACKENDS
from support.needs import needs_module
from support.stub_backend import Fault, StubBackend
from support.waiting import until

_LARGE = 50_000
KEY = "sk-very-secret-0123456789"
Pair = tuple[RemoteEngine, StubBackend]
PLACE = RemotePlace("vllm", "http://someone:pass@gpu.example:8000/v1", "m", SecretStr(KEY), name="slot")


@pytest.fixture(scope="module", params=BACKENDS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """An engine before a stub of its kind, for all tests of this module: each leaves the stub as it was."""
    needs_module("openai")
    needs_module("anthropic")
    loop = RemoteLoop()
    loop.start()
    with StubBackend(request.param, key=KEY) as stub:
        engine = RemoteEngine(RemotePlace(request.param, stub.url, None, SecretStr(KEY)), loop)
        engine.start()
        yield engine, stub
        engine.stop(10)
    loop.stop(10)


def ask(engine: RemoteEngine, seconds: float = 30.0, *, max_tokens: int = 64) -> str:
    call = ChatCall([{"role": "user", "content": "My name is Zorvek"}], Sampling(0, 1, max_tokens))
    return engine.generate(call).wait(time.monotonic() + seconds).text


def failure(pair: Pair, fault: Fault) -> EngineError:
    engine, stub = pair
    stub.faults.append(fault)
    with pytest.raises(EngineError) as failed:
        ask(engine)
    assert KEY not in repr(failed.value)
    assert ask(engine) == "My name is Zorvek"  # the next one is none the worse for it
    return failed.value


def backend_failure(pair: Pair, fault: Fault) -> BackendError:
    error = failure(pair, fault)
    assert isinstance(error, BackendError), repr(error)
    return error


@pytest.mark.parametrize(
    ("status", "fault"), [(429, "429"), (500, "5xx"), (502, "5xx"), (503, "503"), (504, "timeout"), (529, "529")]
)
def test_a_status_is_counted_by_its_kind(pair: Pair, status: int, fault: str) -> None:
    error = backend_failure(pair, Fault(status=status))
    assert (error.fault, error.retry_after, error.may_retry) == (fault, None, True)


def test_the_servers_word_for_how_long_is_taken(pair: Pair) -> None:
    assert backend_failure(pair, Fault(status=429, retry_after="7")).retry_after == 7
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    paused = backend_failure(pair, Fault(status=503, retry_after=date)).retry_after
    assert paused is not None
    assert 20 < paused <= 30
    assert backend_failure(pair, Fault(status=429, headers={"retry-after-ms": "250"})).retry_after == 0.25
    assert not backend_failure(pair, Fault(status=500, headers={"x-should-retry": "false"})).may_retry


def test_a_spent_budget_is_not_tried_again(pair: Pair) -> None:
    error = backend_failure(pair, Fault(status=429, kind="insufficient_quota", retry_after="1"))
    assert (error.fault, error.may_retry) == ("429", False)


@pytest.mark.parametrize(("status", "fault"), [(503, "503"), (529, "529")])
@pytest.mark.parametrize("after", [0, 2])
def test_an_error_inside_a_stream_that_began_well(pair: Pair, status: int, fault: str, after: int) -> None:
    error = backend_failure(pair, Fault(in_stream=status, after=after))
    # Anthropic's errors have no numbers in a stream, and TGI's are words alone.
    told = {"anthropic": "529" if status == 529 else "5xx", "tgi": "5xx"}
    assert error.fault == told.get(pair[0].place.backend, fault)


def test_a_reset_before_the_answer_is_the_connections_and_after_it_a_cut(pair: Pair) -> None:
    assert backend_failure(pair, Fault(reset=True)).fault in {"connection", "cut"}
    assert backend_failure(pair, Fault(reset=True, after=2)).fault == "cut"


@pytest.mark.parametrize("after", [1, 4])
def test_a_stream_that_ends_without_a_reason_is_cut(pair: Pair, after: int) -> None:
    assert backend_failure(pair, Fault(cut=True, after=after)).fault == "cut"
    assert backend_failure(pair, Fault(raw="", after=after)).fault == "cut"


def test_silence_ends_with_the_deadline_and_frees_the_connection(pair: Pair) -> None:
    engine, stub = pair
    closed = stub.closed
    stub.faults.append(Fault(silence=True, after=1))
    generation = engine.generate(ChatCall([{"role": "user", "content": "hello"}], Sampling(0, 1, 64)))
    until(lambda: stub.running)
    with pytest.raises(GenerationTimeoutError):
        generation.wait(time.monotonic() + 0.5)
    until(lambda: stub.closed == closed + 1)


@pytest.mark.parametrize(
    "raw",
    [
        "data: {not json\n\n",
        "event: x\ndata: [1, 2]\n\n",
        "event: x\ndata: " + "[" * 100_000 + "\n\n",
        "event: x\ndata: \xff\n\n",
        'event: x\ndata: {"choices": 7, "type": 7}\n\n',
        'event: x\ndata: {"choices": [7], "type": null}\n\n',
    ],
    ids=["no JSON", "no object", "deep", "bytes", "no list", "no choice"],
)
def test_what_is_no_chat_completion_is_a_failure_in_words(pair: Pair, raw: str) -> None:
    assert backend_failure(pair, Fault(raw=raw, after=1)).fault == "cut"


def test_an_event_without_end_is_not_kept(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LARGEST_EVENT", _LARGE)
    for raw in ("data: " + "x" * 2 * _LARGE, "data: x\n" * (_LARGE // 4)):
        error = backend_failure(pair, Fault(raw=raw, after=1))
        assert error.fault == "cut"
        assert "larger than any" in str(error)


def test_an_error_as_large_as_a_book_is_not_kept(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LARGEST_ANSWER", _LARGE)
    error = backend_failure(pair, Fault(status=500, body="x" * 2 * _LARGE))
    assert "larger than any" in str(error)


def test_an_answer_longer_than_was_asked_for_is_ended(pair: Pair) -> None:
    engine, stub = pair
    stub.answer = "w" * 10_000
    try:
        with pytest.raises(BackendError, match="greater length"):
            ask(engine, max_tokens=10)
    finally:
        stub.answer = None


def test_endless_headers_are_not_kept(pair: Pair) -> None:
    headers = {f"x-{index}": "y" * 1000 for index in range(500)}
    assert failure(pair, Fault(status=500, headers=headers))


def test_a_refusal_is_told_to_the_requester_without_our_secrets(pair: Pair) -> None:
    engine, _ = pair
    words = f"bad {KEY} at {engine.place.url} \x1b[2J" + "z" * 5000
    error = failure(pair, Fault(status=400, text=words))
    assert isinstance(error, InvalidCallError)
    assert "bad" in str(error)
    assert engine.place.url not in str(error)
    assert "\x1b" not in str(error)
    assert len(str(error)) <= 300


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_is_the_operators_fault_is_no_business_of_the_requesters(pair: Pair, status: int) -> None:
    error = failure(pair, Fault(status=status, text=f"wrong {KEY}"))
    assert type(error) is EngineError
    assert str(status) in str(error)


def test_a_redirect_is_not_followed_and_takes_no_key_along(pair: Pair) -> None:
    with StubBackend("openai") as elsewhere:
        target = {"location": f"{elsewhere.url}/v1/chat/completions"}
        for status in (302, 307, 308):
            error = failure(pair, Fault(status=status, headers=target))
            assert "leads elsewhere" in str(error)
        assert not elsewhere.requests
        assert not elsewhere.probes


def test_a_rate_limit_lets_through_what_it_says(pair: Pair) -> None:
    engine, stub = pair
    stub.rate, stub.burst, stub._bucket = 1 / 60, 1, (0.0, 0.0)
    try:
        assert ask(engine)
        with pytest.raises(BackendError) as refused:
            ask(engine)
        assert refused.value.fault == "429"
        assert refused.value.retry_after in range(1, 61)
    finally:
        stub.rate = None


def test_a_server_that_has_gone_is_a_connection_that_failed(pair: Pair) -> None:
    with StubBackend(pair[0].place.backend) as stub:
        engine = RemoteEngine(RemotePlace(pair[0].place.backend, stub.url), pair[0]._loop)
        engine.start()
    with pytest.raises(BackendError) as failed:
        ask(engine)
    assert failed.value.fault == "connection"
    engine.stop(5)


@pytest.mark.parametrize("said", ["nan", "-1", "inf", "1e999", "soon", "", "Wed, 99 Foo 2026", "Infinity", "0x10", "²"])
def test_a_pause_that_is_none_is_not_taken(said: str) -> None:
    assert retry_after({"retry-after": said}) is None


@pytest.mark.parametrize("said", ["1e300", "99999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_pause_without_end_has_one(said: str) -> None:
    paused = retry_after({"retry-after": said})
    assert paused is not None
    assert math.isfinite(paused)
    assert paused <= 3600


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": 400, "type": "exceed_context_size_error", "message": "the request exceeds"}},
        {"error": {"message": "This model's maximum context length is 8192 tokens.", "code": None}},
        {"error": {"message": "x", "code": "context_length_exceeded"}},
        {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 3 tokens > 2"}},
        {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096", "error_type": "x"},
        {"error": {"message": "Prompt length 5000 is greater than max_seq_len 4096"}},
        {"error": "the input length exceeds the context length"},
    ],
)
def test_a_prompt_that_is_too_long_is_known_by_each_servers_words(body: object) -> None:
    assert isinstance(refusal(PLACE, 400, {}, body), ContextTooLongError)
    assert isinstance(in_stream(PLACE, {"code": 400, "message": str(body)}, {}), ContextTooLongError)


@pytest.mark.parametrize("body", [None, "", [], 7, {"error": None}, {"error": []}, {"error": {"message": {}}}])
def test_an_error_that_says_nothing_is_one_all_the_same(body: object) -> None:
    assert isinstance(refusal(PLACE, 500, {}, body), BackendError)
    assert str(refusal(PLACE, 422, {}, body)) == "The model's server refuses this request."
    assert isinstance(in_stream(PLACE, body, {}), BackendError)


def test_a_refusal_that_repeats_what_was_sent_is_told_without_the_password() -> None:
    said = f"not with Basic {b64encode(b'someone:pass').decode()}, someone:pass, {PLACE.url}"
    words = str(refusal(PLACE, 400, {}, {"error": {"message": said}}))
    assert words == "not with Basic …, someone:…, …"


def test_nothing_that_is_said_of_a_place_holds_its_secrets() -> None:
    errors = [refusal(PLACE, status, {}, {"error": {"message": f"{KEY} {PLACE.url}"}}) for status in range(300, 600)]
    for said in (repr(PLACE), str(PLACE), PLACE.shown_url, *map(str, errors)):
        assert KEY not in said
        assert "pass" not in said
