"""One server floods the loop that all of them share, with pieces as small as there are: the others have their turns."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from inferbus_worker.engines.base import BackendError, ChatCall, Sampling
from inferbus_worker.engines.remote.engine import RemoteEngine, RemotePlace
from inferbus_worker.engines.remote.loop import RemoteLoop
from inferbus_worker.settings.models import Backend
from support.stranger import LINES, STREAM, Stranger, chunked, event, line
from support.stub_backend import StubBackend
from support.waiting import until

#: So many pieces, of which each costs the loop some twenty microseconds, came in two or three turns of it.
_MANY = 20_000
_LEAST_TURNS = 30
_CHUNKS = STREAM.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n")
_END = event({"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]})
_LAST_LINE = line({"message": {"content": "hi"}, "done": True})
_COMMENT = b": " + b"x" * _MANY + b"\n\n"
_FLOODS: dict[str, tuple[Backend, bytes]] = {
    "chunks of one byte": ("vllm", _CHUNKS + chunked(*[b"%c" % byte for byte in _COMMENT], _END) + b"0\r\n\r\n"),
    "tiny events": ("vllm", STREAM + b"data: {}\n\n" * _MANY + _END),
    "tiny lines": ("ollama", LINES + b"{}\n" * _MANY + _LAST_LINE),
}
CALL = ChatCall([{"role": "user", "content": "one two three"}], Sampling(0, 1, 64))


def engine_at(stub: StubBackend, loop: RemoteLoop) -> RemoteEngine:
    options = {"num_ctx": 4096} if stub.backend == "ollama" else {}
    engine = RemoteEngine(RemotePlace(stub.backend, stub.url, options=options), loop)  # type: ignore[arg-type]
    engine.start()
    return engine


class Turns:
    """Counts the turns that others get on the loop."""

    def __init__(self, loop: RemoteLoop) -> None:
        self.count = 0
        self._loop = loop

    def begin(self) -> None:
        self._task = asyncio.run_coroutine_threadsafe(self._work(), self._loop.loop)

    def end(self) -> int:
        self._task.cancel()
        return self.count

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(0.0005)
            self.count += 1


@pytest.mark.parametrize("flood", _FLOODS)
def test_others_have_their_turns_while_it_is_read(loop: RemoteLoop, flood: str) -> None:
    """Counted in turns, not in time: on a machine that is half as fast there are only more of them."""
    backend, said = _FLOODS[flood]
    with Stranger(backend) as stranger:
        engine, turns = engine_at(stranger, loop), Turns(loop)
        stranger.pieces = [said]
        turns.begin()
        assert engine.generate(CALL).wait(time.monotonic() + 60).text == "hi"
        assert turns.end() >= _LEAST_TURNS
        engine.stop(10)


@pytest.mark.parametrize("piece", [chunked(b":", b"\n", b"\n") * 5, chunked(b"data: {}\n\n" * 20)])
def test_another_servers_answers_flow_while_one_floods_without_end(loop: RemoteLoop, piece: bytes) -> None:
    with Stranger("vllm") as stranger, StubBackend("vllm") as stub:
        flooded, other = engine_at(stranger, loop), engine_at(stub, loop)
        stranger.pieces = itertools.chain([_CHUNKS], itertools.repeat(piece * 100))
        flood = flooded.generate(CALL)
        until(lambda: stranger.said > 1)
        for _ in range(5):
            assert other.generate(CALL).wait(time.monotonic() + 20).text == "one two three"
        assert not flood.is_over
        flood.cancel()
        for engine in (flooded, other):
            engine.stop(10)


@pytest.mark.parametrize("backend", ["vllm", "anthropic"])
@pytest.mark.parametrize("short", [b":\n", b"data:\n", b"\r", b"a\r\n"])
def test_an_event_of_many_lines_is_none(loop: RemoteLoop, backend: Backend, short: bytes) -> None:
    """A library copied all that had come of an event for each line of it: half a megabyte took five seconds."""
    with Stranger(backend) as stranger:
        engine = engine_at(stranger, loop)
        stranger.pieces = [STREAM + short * 20_000 + _END]
        with pytest.raises(BackendError, match="larger than any may be"):
            engine.generate(CALL).wait(time.monotonic() + 20)
        engine.stop(10)


def test_of_an_event_of_many_choices_the_first_few_are_looked_at(loop: RemoteLoop) -> None:
    """One was asked for; those of a megabyte held everybody up for more than half a second."""
    with Stranger("vllm") as stranger:
        engine = engine_at(stranger, loop)
        other, last = b'{"index": 1},', b'{"index": 0, "delta": {"content": "late"}}'
        stranger.pieces = [STREAM + b'data: {"choices": [' + other * _MANY + last + b"]}\n\n" + _END]
        assert engine.generate(CALL).wait(time.monotonic() + 20).text == "hi"
        engine.stop(10)
