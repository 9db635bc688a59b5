"""A server that means harm: what it answers costs no more than its bytes, and holds nobody up."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator

import pytest

from inferbus_worker.engines.base import BackendError, ChatCall, ContextTooLongError, Sampling
from inferbus_worker.engines.remote import parts
from inferbus_worker.engines.remote.engine import RemoteEngine, RemotePlace
from inferbus_worker.engines.remote.loop import RemoteLoop
from support.needs import needs_module
from support.stranger import STREAM, Stranger

_TOO_LONG = json.dumps({"error": {"message": "the prompt is too long"}}).encode()


@pytest.fixture(scope="module")
def loop() -> Iterator[RemoteLoop]:
    needs_module("openai")
    loop = RemoteLoop()
    loop.start()
    yield loop
    loop.stop(10)


@pytest.fixture
def pair(loop: RemoteLoop) -> Iterator[tuple[RemoteEngine, Stranger]]:
    with Stranger("vllm") as stranger:
        engine = RemoteEngine(RemotePlace("vllm", stranger.url), loop)
        engine.start()
        yield engine, stranger
        engine.stop(10)


def ask(engine: RemoteEngine, seconds: float = 20.0) -> str:
    call = ChatCall([{"role": "user", "content": "My name is Zorvek"}], Sampling(0, 1, 64))
    return engine.generate(call).wait(time.monotonic() + seconds).text


def whole(head: str, body: bytes) -> list[bytes]:
    return [f"HTTP/1.1 {head}\r\ncontent-length: {len(body)}\r\n\r\n".encode(), body]


def event(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "503 Unavailable"])
@pytest.mark.parametrize("coding", ["gzip", "GZip ", "identity, gzip", "deflate", "zstd"])
def test_what_is_packed_is_not_unpacked(pair: tuple[RemoteEngine, Stranger], status: str, coding: str) -> None:
    engine, stranger = pair
    bomb = gzip.compress(b": " + b"x" * 2_000_000 + b"\n\n" + event("hi", "stop"))
    stranger.pieces = whole(f"{status}\r\ncontent-type: text/event-stream\r\ncontent-encoding: {coding}", bomb)
    with pytest.raises(BackendError, match="packs its answer"):
        ask(engine)


@pytest.mark.parametrize("charset", ["punycode", "idna", "rot13", "zlib_codec", "utf-16", "nobody's"])
def test_an_answer_is_read_as_utf8_whatever_it_says_of_itself(
    pair: tuple[RemoteEngine, Stranger], charset: str
) -> None:
    engine, stranger = pair
    stranger.pieces = whole(f"400 Bad Request\r\ncontent-type: application/json; charset={charset}", _TOO_LONG)
    with pytest.raises(ContextTooLongError):
        ask(engine)


def test_what_goes_on_after_its_end_is_left(
    pair: tuple[RemoteEngine, Stranger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_PATIENCE", 0.5)
    engine, stranger = pair
    stranger.pieces = iter([STREAM, event("hi"), event("", "stop"), *[event("")] * 1000])
    stranger.pause = 0.05
    assert ask(engine) == "hi"


def test_half_a_character_is_none(pair: tuple[RemoteEngine, Stranger]) -> None:
    """It would go into the session's history, and no later request with that could be sent."""
    engine, stranger = pair
    stranger.pieces = [STREAM, event("half \ud83d"), event("gr\u00fc\u00df", "stop")]
    said = ask(engine)
    assert said == "half ?gr\u00fc\u00df"
    assert said.encode()
