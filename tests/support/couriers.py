"""Calls that need no scripts but these, and a courier that carries them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from inferbus_worker.settings.store_url import StoreUrl
from inferbus_worker.state.errors import StoreError
from inferbus_worker.state.redis.calls import Argument, Call
from inferbus_worker.state.redis.connection import Store
from inferbus_worker.state.redis.courier import Courier
from support.waiting import until

KEY: Final = "inferbus:1:{test}:"
SCRIPTS: Final = {
    "count": "return redis.call('INCRBY', KEYS[1], ARGV[1])",
    "commit": "return redis.call('INCRBY', KEYS[1], ARGV[1])",
    "spin": "while true do end",
    "fail": "return redis.call('LPUSH', KEYS[1])",
}


def count(key: str = f"{KEY}n", by: int = 1, *, is_history: bool = False, name: str = "count") -> Call[int]:
    return Call(name, (key,), (by,), int, is_history)


def plain(name: str, *args: Argument) -> Call[object]:
    """A plain command of the group's."""
    return Call(name, (f"{KEY}n",), args, lambda answer: answer)


@contextmanager
def courier(url: str) -> Iterator[Courier]:
    """One that has reached the store."""
    one = Courier(Store(StoreUrl.parse(url)), KEY, SCRIPTS)
    one.start()
    try:
        until(lambda: one.is_here)
        yield one
    finally:
        one.stop(5)


def refusal(ask: Callable[[], object]) -> tuple[StoreError, float]:
    """What a call fails with, and after how many seconds."""
    began = time.monotonic()
    try:
        answer = ask()
    except StoreError as error:
        return error, time.monotonic() - began
    raise AssertionError(f"it was answered: {answer!r}")
