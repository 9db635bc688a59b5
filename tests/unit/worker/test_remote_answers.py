"""What of a server's stream is the answer: the first choice, up to why it ends, and figures that are some."""

from __future__ import annotations

import time
from typing import Any

import pytest

from inferbus_worker.engines.base import ChatCall, Completion, Sampling
from inferbus_worker.engines.remote.engine import RemoteEngine, RemotePlace
from inferbus_worker.engines.remote.loop import RemoteLoop
from inferbus_worker.settings.models import Backend
from support.stranger import LINES, STREAM, Stranger, chunked, event, line

#: One server for each shape: OpenAI's, Anthropic's, and Ollama's own.
SHAPES: tuple[Backend, ...] = ("vllm", "anthropic", "ollama")
NO_FIGURES = [-1, -(10**12), 10**12, 1e300, True, "12", None, [], {}, 10**8]
NO_TEXTS = [None, 7, 1.5, True, ["a"], {"text": "a"}]


def ask(loop: RemoteLoop, backend: Backend, *pieces: bytes) -> Completion:
    """What is made of these bytes; Ollama is asked through its own endpoint."""
    head = LINES if backend == "ollama" else STREAM
    with Stranger(backend) as stranger:
        stranger.pieces = [head, *pieces]
        options = {"num_ctx": 4096} if backend == "ollama" else {}
        engine = RemoteEngine(RemotePlace(backend, stranger.url, options=options), loop)
        engine.start()
        try:
            call = ChatCall([{"role": "user", "content": "My name is Zorvek"}], Sampling(0, 1, 64), thinking="show")
            return engine.generate(call).wait(time.monotonic() + 20)
        finally:
            engine.stop(10)


def said(backend: Backend, text: Any) -> bytes:
    if backend == "anthropic":
        delta = {"type": "text_delta", "text": text}
        return event({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")
    if backend == "ollama":
        return line({"message": {"role": "assistant", "content": text}, "done": False})
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


def thought(backend: Backend, reasoning: str) -> bytes:
    if backend == "anthropic":
        delta = {"type": "thinking_delta", "thinking": reasoning}
        return event({"type": "content_block_delta", "index": 1, "delta": delta}, "content_block_delta")
    if backend == "ollama":
        return line({"message": {"role": "assistant", "thinking": reasoning}, "done": False})
    return event({"choices": [{"index": 0, "delta": {"reasoning": reasoning}, "finish_reason": None}]})


def end(backend: Backend, reason: str = "stop", **spent: Any) -> bytes:
    """Why it ends, without the end of the stream."""
    if backend == "anthropic":
        delta = {"stop_reason": {"stop": "end_turn", "length": "max_tokens"}.get(reason, reason)}
        return event({"type": "message_delta", "delta": delta, "usage": spent}, "message_delta")
    if backend == "ollama":
        return line({"message": {}, "done": True, "done_reason": reason, **spent})
    return event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})


def stop(backend: Backend) -> bytes:
    return event({"type": "message_stop"}, "message_stop") if backend == "anthropic" else b""


def spent(backend: Backend, prompt: Any, completion: Any) -> bytes:
    """The usage alone, where the server has a place for that."""
    if backend == "anthropic":
        usage = {"input_tokens": prompt, "output_tokens": completion}
        return event({"type": "message_start", "message": {"usage": usage}}, "message_start")
    if backend == "ollama":
        return b""
    return event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}})


@pytest.mark.parametrize("backend", SHAPES)
def test_what_comes_after_its_end_is_not_the_answers(loop: RemoteLoop, backend: Backend) -> None:
    late = [said(backend, "more"), thought(backend, "and more"), end(backend, "length"), said(backend, "and more")]
    done = ask(loop, backend, said(backend, "hi"), end(backend), *late, stop(backend), *late)
    assert (done.text, done.reasoning, done.finish_reason) == ("hi", "", "stop")


@pytest.mark.parametrize("backend", SHAPES)
def test_what_breaks_after_its_end_breaks_nothing(loop: RemoteLoop, backend: Backend) -> None:
    head = LINES if backend == "ollama" else STREAM
    whole = said(backend, "hi") + end(backend) + stop(backend)
    junk = b'event: message_delta\ndata: {"type": "\n\n' if backend == "anthropic" else b"data: {\n\n"
    assert ask(loop, backend, whole, junk).text == "hi"
    with_chunks = head.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n")
    with Stranger(backend) as stranger:
        stranger.pieces = [with_chunks, chunked(whole)]  # and no last chunk
        options = {"num_ctx": 4096} if backend == "ollama" else {}
        engine = RemoteEngine(RemotePlace(backend, stranger.url, options=options), loop)
        engine.start()
        call = ChatCall([{"role": "user", "content": "hi"}], Sampling(0, 1, 64))
        assert engine.generate(call).wait(time.monotonic() + 20).text == "hi"
        engine.stop(10)


def test_an_end_within_the_last_words_ends_after_them(loop: RemoteLoop) -> None:
    last = {"index": 0, "delta": {"content": " there"}, "finish_reason": "length"}
    done = ask(loop, "vllm", said("vllm", "hi"), event({"choices": [last]}), said("vllm", "more"))
    assert (done.text, done.finish_reason) == ("hi there", "length")
    closing = line({"message": {"content": " there"}, "done": True, "done_reason": "length"})
    assert ask(loop, "ollama", said("ollama", "hi"), closing, said("ollama", "more")).text == "hi there"


@pytest.mark.parametrize("together", [True, False])
def test_of_several_choices_the_first_is_the_answer(
    loop: RemoteLoop,
    together: bool,  # noqa: FBT001 - drawn
) -> None:
    def choices(*texts: str, finish: str | None = None, first: int = 0) -> list[bytes]:
        every = [
            {"index": first + number, "delta": {"content": text}, "finish_reason": finish}
            for number, text in enumerate(texts)
        ]
        return [event({"choices": every})] if together else [event({"choices": [one]}) for one in every]

    pieces = [*choices("one ", "another "), *choices("another ", finish="length", first=1), *choices("two", "more")]
    done = ask(loop, "vllm", *pieces, *choices("", "", finish="stop"))
    assert (done.text, done.finish_reason) == ("one two", "stop")


@pytest.mark.parametrize("index", [{}, {"index": None}])
def test_a_choice_without_a_number_is_the_first(loop: RemoteLoop, index: dict[str, Any]) -> None:
    """Nor does anybody need the other names that OpenAI gives to an answer and its choices."""
    lone = event({"choices": [{**index, "delta": {"content": "hi"}, "finish_reason": "stop"}]})
    assert ask(loop, "vllm", lone).text == "hi"


@pytest.mark.parametrize("backend", SHAPES)
def test_content_that_is_no_text_is_none(loop: RemoteLoop, backend: Backend) -> None:
    odd = [said(backend, value) for value in NO_TEXTS]
    assert ask(loop, backend, *odd, said(backend, "hi"), *odd, end(backend), stop(backend)).text == "hi"


@pytest.mark.parametrize("backend", ["vllm", "anthropic"])
def test_the_last_figures_that_are_some_hold(loop: RemoteLoop, backend: Backend) -> None:
    odd = [spent(backend, value, value) for value in NO_FIGURES]
    figures = [*odd, spent(backend, 3, 4), spent(backend, 5, 6), *odd]
    done = ask(loop, backend, *figures, said(backend, "hi"), *odd, end(backend), *odd, stop(backend))
    assert done.usage == (5, 6)


@pytest.mark.parametrize("figure", NO_FIGURES)
def test_ollamas_figures_that_are_none_are_estimated(loop: RemoteLoop, figure: object) -> None:
    usage: dict[str, Any] = {"prompt_eval_count": figure, "eval_count": figure}
    done = ask(loop, "ollama", said("ollama", "hi"), end("ollama", **usage))
    assert 1 <= done.usage.prompt_tokens <= 64
    assert done.usage.completion_tokens == 1


def test_each_of_the_figures_of_a_cached_prompt_has_to_be_one(loop: RemoteLoop) -> None:
    usage = {"input_tokens": 5, "cache_read_input_tokens": -3, "cache_creation_input_tokens": True, "output_tokens": 1}
    start = event({"type": "message_start", "message": {"usage": usage}}, "message_start")
    done = ask(loop, "anthropic", start, said("anthropic", "hi"), end("anthropic"), stop("anthropic"))
    assert done.usage == (5, 1)


def test_of_a_cached_prompt_what_is_not_said_again_still_holds(loop: RemoteLoop) -> None:
    usage = {"input_tokens": 5, "cache_read_input_tokens": 30, "output_tokens": 1}
    start = event({"type": "message_start", "message": {"usage": usage}}, "message_start")
    last = end("anthropic", input_tokens=6, cache_read_input_tokens="many", output_tokens=2)
    assert ask(loop, "anthropic", start, said("anthropic", "hi"), last, stop("anthropic")).usage == (36, 2)


@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029"])
def test_what_ends_a_line_of_text_does_not_end_one_of_ollamas(loop: RemoteLoop, character: str) -> None:
    """JSON holds these as they are."""
    assert ask(loop, "ollama", said("ollama", f"a{character}b"), end("ollama")).text == f"a{character}b"


def test_ollamas_last_line_needs_no_end(loop: RemoteLoop) -> None:
    assert (
        ask(loop, "ollama", b"\r\n \n", said("ollama", "hi").replace(b"\n", b"\r\n"), end("ollama")[:-1]).text == "hi"
    )
