"""Where prompts are rendered: short ones in the engine's loop, long ones in vLLM's pool, and never in both at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from inferbus_worker.chat import Message
from inferbus_worker.engines.base import ChatCall, Sampling
from inferbus_worker.engines.vllm import rendering
from inferbus_worker.engines.vllm.engine import VllmEngine


class Renderer:
    """What is used of one of vLLM's."""

    class Swappable:
        def __init__(self) -> None:
            self._inner = ThreadPoolExecutor(1, thread_name_prefix="pool")

    def __init__(self) -> None:
        self._executor = self.Swappable()


@pytest.fixture
def executor() -> Iterator[Any]:
    renderer = Renderer()
    rendering.render_in_place(renderer)
    yield renderer._executor._inner
    renderer._executor._inner.shutdown()


def call(text: str) -> ChatCall:
    return ChatCall([{"role": "user", "content": text}], Sampling(0.0, 1.0, 8))


def here() -> str:
    return threading.current_thread().name


def test_a_short_prompt_is_rendered_by_whoever_asks(executor: Any) -> None:
    rendering.begin(call("hello"))
    assert executor.submit(here).result(5) == here()


CALLS = [{"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"at": "' + "x" * 3_000 + '"}'}}]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "x" * 3_000}],
        [{"role": "assistant", "content": "", "tool_calls": CALLS}],
        [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        [{"role": "user", "content": ""}] * 1_000,
    ],
    ids=["text", "calls", "parts", "many"],
)
def test_a_long_one_goes_to_the_pool(executor: Any, messages: list[Message]) -> None:
    rendering.begin(ChatCall(messages, Sampling(0.0, 1.0, 8)))
    assert executor.submit(here).result(5).startswith("pool")


def test_what_nobody_has_spoken_of_goes_to_the_pool(executor: Any) -> None:
    def ask() -> str:
        return str(executor.submit(here).result(5))

    with ThreadPoolExecutor(1) as elsewhere:  # a thread has a context of its own
        assert elsewhere.submit(ask).result(5).startswith("pool")


def test_while_the_pool_is_busy_all_goes_there(executor: Any) -> None:
    free = threading.Event()
    rendering.begin(call("x" * 3_000))
    long = executor.submit(free.wait, 10)
    rendering.begin(call("hello"))
    short = executor.submit(here)
    free.set()
    assert long.result(5)
    assert short.result(5).startswith("pool")
    assert executor.submit(here).result(5) == here()


def test_an_error_reaches_whoever_waits(executor: Any) -> None:
    rendering.begin(call("hello"))
    with pytest.raises(ZeroDivisionError):
        executor.submit(lambda: 1 // 0).result(5)


def test_vllm_asks_it(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    kind = type(engine._engine.renderer._executor._inner)
    submit = kind.submit

    def noted(*args: Any, **more: Any) -> Any:
        asked.append(here())
        return submit(*args, **more)

    monkeypatch.setattr(kind, "submit", noted)
    assert engine.generate(call("Who are you?")).wait(None).text
    assert set(asked) == {"engine-loop"}
