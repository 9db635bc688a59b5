"""Ctrl-C in a client, at every place where it can come: what was asked is cancelled, and nothing stays taken."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest

import inferbus_client
from inferbus_client import Client, RequestTimeoutError
from inferbus_client.contract.wire import Done
from inferbus_client.exchange import transport
from inferbus_client.mqtt.message import Incoming
from support.trials import size

#: Where it comes: wherever a request is under way, and in what runs the `with` blocks there.
_HOUSE: Final = Path(inferbus_client.__file__).parent
_OURS: Final = ("errand", "exchange", "reply_topics", "transport", "turns", "waiters")
_TRACED: Final = {
    *(contextlib.__file__, str(_HOUSE / "client.py")),
    *(str(_HOUSE / "exchange" / f"{name}.py") for name in _OURS),
}


class PretendLink:
    """A link to a worker that answers at once, or never. Everything happens in the caller's thread."""

    answers = True
    is_up = is_v5 = is_alive = True
    fatal = max_packet_size = None
    asked: Final[set[str]] = set()
    cancelled: Final[set[str]] = set()

    def __init__(self, _options: object, *, on_message: Callable[[Incoming], None], **_callbacks: object) -> None:
        self._on_message = on_message

    def connect(self, _timeout: float) -> None: ...

    def close(self) -> None: ...

    def start_subscribing(self, _filters: object) -> Future[None]:
        granted: Future[None] = Future()
        granted.set_result(None)
        return granted

    def publish(self, topic: str, payload: bytes, **_options: object) -> bool:
        fields = json.loads(payload)
        if "/cancel/" in topic:
            self.cancelled.add(fields["requestId"])
        elif self.answers:
            self._answer(fields)
        else:
            self.asked.add(fields["requestId"])
        return True

    def _answer(self, fields: dict[str, Any]) -> None:
        done = Done(text="yes", request_id=fields["requestId"], session_id=fields["sessionId"], seq=1)
        # This is the network thread's business, where no interrupt comes.
        tracing = sys.gettrace()
        sys.settrace(None)
        self._on_message(Incoming(fields["replyTopic"], done.encode()))
        sys.settrace(tracing)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    PretendLink.asked.clear()
    PretendLink.cancelled.clear()
    monkeypatch.setattr(transport, "Link", PretendLink)
    with Client(pacing=0, retries=0) as client:
        yield client


@contextmanager
def interrupted_at(moment: int, *, opcodes: bool) -> Iterator[list[int]]:
    """Raise KeyboardInterrupt at the nth line (or bytecode); yields a list that then holds its number."""
    seen, came = 0, list[int]()

    def trace(frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal seen
        if frame.f_code.co_filename not in _TRACED:
            return None
        frame.f_trace_opcodes = opcodes
        if event == ("opcode" if opcodes else "line"):
            seen += 1
            if seen == moment:
                came.append(moment)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield came
    finally:
        sys.settrace(before)


def ask(client: Client) -> None:
    client.ask("x", timeout=0.001)


def read(client: Client) -> None:
    with client.stream("x", timeout=0.001) as stream:
        for _delta in stream:
            pass


@pytest.mark.parametrize("answers", [False, True])
@pytest.mark.parametrize("verb", [ask, read])
def test_whenever_it_comes_what_was_asked_is_cancelled_and_the_session_is_free(
    client: Client, monkeypatch: pytest.MonkeyPatch, verb: Callable[[Client], None], *, answers: bool
) -> None:
    opcodes = bool(size(0, 1))
    for moment in itertools.count(1):
        monkeypatch.setattr(PretendLink, "answers", answers)
        with suppress(KeyboardInterrupt, RequestTimeoutError), interrupted_at(moment, opcodes=opcodes) as came:
            verb(client)
        if not came:
            break
        gc.collect(1)
        assert PretendLink.asked <= PretendLink.cancelled, f"interrupted at {moment}"
        monkeypatch.setattr(PretendLink, "answers", True)
        assert client.ask("is it free?", when_busy="raise", timeout=10).text == "yes", f"interrupted at {moment}"
    assert moment > 100
    assert bool(PretendLink.asked) is not answers
