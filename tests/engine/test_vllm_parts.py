"""The parts around vLLM that can be tried without it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import pytest

from inferbus_worker.chat import Usage
from inferbus_worker.engines.base import (
    CancelledGenerationError,
    Chunk,
    EngineDeadError,
    EngineError,
    GenerationTimeoutError,
    InvalidCallError,
)
from inferbus_worker.engines.vllm.chat import check_messages, checked_parameters, coalesced, finish_reason
from inferbus_worker.engines.vllm.generation import LoopGeneration

END = Chunk(".", finish_reason="stop", usage=Usage(1, 2))


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def answer(*chunks: Chunk | EngineError, pause: float = 0.0) -> AsyncGenerator[Chunk, None]:
    for chunk in chunks:
        await asyncio.sleep(pause)
        if isinstance(chunk, EngineError):
            raise chunk
        yield chunk


async def endless(ended: threading.Event) -> AsyncGenerator[Chunk, None]:
    try:
        while True:
            await asyncio.sleep(0.01)
            yield Chunk("on ")
    finally:
        ended.set()


def test_chunks_arrive_in_order_and_end_with_the_finish_reason(loop: asyncio.AbstractEventLoop) -> None:
    assert list(LoopGeneration(loop, answer(Chunk("a"), Chunk("b"), END)).chunks(None)) == [
        Chunk("a"),
        Chunk("b"),
        END,
    ]


def test_an_error_of_the_engine_reaches_the_reader(loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(InvalidCallError, match="no"):
        list(LoopGeneration(loop, answer(Chunk("a"), InvalidCallError("no"))).chunks(None))


def test_an_answer_without_an_end_is_an_error(loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(EngineError, match="finish reason"):
        list(LoopGeneration(loop, answer(Chunk("a"))).chunks(None))


@pytest.mark.parametrize("way", ["cancel", "deadline", "close"])
def test_whatever_ends_the_reading_ends_the_answer(loop: asyncio.AbstractEventLoop, way: str) -> None:
    ended = threading.Event()
    generation = LoopGeneration(loop, endless(ended))
    chunks = generation.chunks(time.monotonic() + 0.1 if way == "deadline" else None)
    next(chunks)
    if way == "close":
        chunks.close()  # type: ignore[attr-defined]
    else:
        if way == "cancel":
            generation.cancel()
        with pytest.raises(CancelledGenerationError if way == "cancel" else GenerationTimeoutError):
            list(chunks)
    assert ended.wait(5)


def test_a_deadline_in_the_past_yields_nothing(loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(GenerationTimeoutError):
        list(LoopGeneration(loop, answer(END)).chunks(time.monotonic() - 1))


def test_a_closed_loop_is_a_dead_engine() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(EngineDeadError):
        list(LoopGeneration(loop, answer(END)).chunks(None))


def _coalesced(chunks: Sequence[Chunk], interval: float) -> list[Chunk]:
    async def collect() -> list[Chunk]:
        return [chunk async for chunk in coalesced(answer(*chunks), interval)]

    return asyncio.run(collect())


def test_coalescing_sends_the_first_and_the_last_and_loses_nothing() -> None:
    chunks = [Chunk("a", "x"), Chunk("b"), Chunk("c", "y"), END]
    assert _coalesced(chunks, 60) == [Chunk("a", "x"), Chunk("bc.", "y", "stop", Usage(1, 2))]


def test_an_interval_of_zero_passes_every_chunk() -> None:
    chunks = [Chunk("a"), Chunk("b"), END]
    assert _coalesced(chunks, 0) == chunks


@pytest.mark.parametrize("reason", ["abort", "error", "tool_calls", None])
def test_only_stop_and_length_are_answers(reason: str | None) -> None:
    assert finish_reason("stop") == "stop"
    assert finish_reason("length") == "length"
    with pytest.raises(EngineError):
        finish_reason(reason)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://example.org/x.png"}},
        {"type": "image_url", "image_url": "https://example.org/x.png"},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": {"url": "DATA:text/html,x"}},
        {"type": "image_url"},
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AA"}},
        {"type": "image_embeds", "image_embeds": "AA"},
        "just a string",
        None,
    ],
    ids=str,
)
def test_only_text_and_inline_images_are_content(part: Any) -> None:
    with pytest.raises(InvalidCallError):
        check_messages([{"role": "user", "content": [part]}], images=True)


def test_inline_images_are_content_for_models_that_see() -> None:
    parts = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
    check_messages([{"role": "user", "content": parts}], images=True)
    with pytest.raises(InvalidCallError, match="images"):
        check_messages([{"role": "user", "content": parts}], images=False)


def test_a_parameter_off_the_list_is_named() -> None:
    assert checked_parameters({"seed": 1, "stop": ["x"]}) == {"seed": 1, "stop": ["x"]}
    with pytest.raises(InvalidCallError, match="logit_bias"):
        checked_parameters({"seed": 1, "logit_bias": {}})
