"""Ctrl-C in the command line while it connects, at every place where it can come: it ends as an interrupted program."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import pytest

from inferbus_client.cli import main
from inferbus_client.exits import Exit
from inferbus_client.mqtt.handshake import wait_for
from inferbus_client.mqtt.link import Link
from support.nowhere import nobody

#: What waits: for the network thread to start, then for the connection.
_TRACED: Final = {one.__code__ for one in (Link.connect, wait_for, Future.result, threading.Condition.wait)}


@contextmanager
def interrupted_at(moment: int) -> Iterator[list[int]]:
    """Raise KeyboardInterrupt at the nth line; yields a list that then holds its number."""
    seen, came = 0, list[int]()

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal seen
        if frame.f_code not in _TRACED:
            return None
        if event == "line":
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


# What it had opened goes with the program.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_whenever_it_comes_the_program_ends_as_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the middle of a wait CPython makes a RuntimeError of it: what was to be released is not held."""
    with nobody() as url:
        monkeypatch.setattr(sys, "argv", ["inferbus", "ask", "--broker", url, "--connect-timeout", "50ms", "hi"])
        for moment in itertools.count(1):
            with interrupted_at(moment) as came:
                status = main._run()
            if not came:
                break
            assert status == Exit.INTERRUPTED, f"interrupted at {moment}"
    assert moment > 20
    assert status == Exit.BROKER
    assert "cannot reach the broker" in capsys.readouterr().err
