"""The parts around vLLM that can be tried without it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from inferbus_worker.chat import Usage
from inferbus_worker.engines.base import (
    CancelledGenerationError,
    Completion,
    EngineDeadError,
    EngineError,
    FirstTokenTimeoutError,
    GenerationTimeoutError,
    InvalidCallError,
)
from inferbus_worker.engines.call_checks import check_messages, checked_parameters
from inferbus_worker.engines.loop_generation import Chunk, LoopGeneration
from inferbus_worker.engines.vllm.chat import finish_reason
from support.waiting import PATIENCE

END = Chunk(".", finish_reason="stop", usage=Usage(1, 2))


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with asyncio.Runner() as runner:  # at its end it lets tasks end that have only just begun, or were just cancelled
        loop = runner.get_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        yield loop
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def answer(*chunks: Chunk | EngineError, pause: float = 0.0) -> AsyncGenerator[Chunk, None]:
    for chunk in chunks:
        await asyncio.sleep(pause)
        if isinstance(chunk, EngineError):
            raise chunk
        yield chunk


async def endless(ended: threading.Event, silence: float = 0.0) -> AsyncGenerator[Chunk, None]:
    """An answer without an end, which begins after so many seconds."""
    try:
        await asyncio.sleep(silence)
        while True:
            await asyncio.sleep(0.01)
            yield Chunk("on ")
    finally:
        ended.set()


def test_deltas_are_told_in_order_and_join_to_the_answer(loop: asyncio.AbstractEventLoop) -> None:
    told: list[tuple[str, str]] = []
    generation = LoopGeneration(
        loop, answer(Chunk("a", "x"), Chunk("b"), END), lambda text, reasoning, *_calls: told.append((text, reasoning))
    )
    assert generation.wait(None) == Completion("ab.", "stop", Usage(1, 2), "x")
    assert told == [("a", "x"), ("b", ""), (".", "")]


def test_an_error_of_the_engine_reaches_the_reader(loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(InvalidCallError, match="no"):
        LoopGeneration(loop, answer(Chunk("a"), InvalidCallError("no"))).wait(None)


def test_an_answer_without_an_end_is_an_error(loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(EngineError, match="finish reason"):
        LoopGeneration(loop, answer(Chunk("a"))).wait(None)


@pytest.mark.parametrize("way", ["cancel", "deadline", "first token"])
def test_whatever_ends_the_waiting_ends_the_answer(loop: asyncio.AbstractEventLoop, way: str) -> None:
    ended, told = threading.Event(), threading.Event()
    slow = endless(ended, 60 if way == "first token" else 0)
    generation = LoopGeneration(loop, slow, lambda *_: told.set(), first_within=0.2 if way == "first token" else None)
    if way == "cancel":
        assert told.wait(PATIENCE)
        generation.cancel()
    errors = {
        "cancel": CancelledGenerationError,
        "deadline": GenerationTimeoutError,
        "first token": FirstTokenTimeoutError,
    }
    with pytest.raises(errors[way]):
        generation.wait(time.monotonic() + 0.1 if way == "deadline" else None)
    assert ended.wait(PATIENCE)
    told.clear()
    with pytest.raises(errors[way]):
        generation.wait(None)
    assert not told.is_set()


def test_a_deadline_in_the_past_gets_no_answer(loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(GenerationTimeoutError):
        LoopGeneration(loop, endless(threading.Event())).wait(time.monotonic() - 1)


def test_a_closed_loop_is_a_dead_engine() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(EngineDeadError):
        LoopGeneration(loop, answer(END)).wait(None)


@pytest.mark.parametrize("reason", ["abort", "error", "repetition", None])
def test_only_stop_and_length_are_answers(reason: str | None) -> None:
    assert finish_reason("stop") == "stop"
    assert finish_reason("tool_calls") == "stop"  # that it calls something, its calls say
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
