"""Trial 47: several workers of one project are started at once. Exactly one stays, and every request has one answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import pytest

from inferbus_client.exits import Exit
from support.listener import Listener
from support.mosquitto import Mosquitto
from support.trials import size
from support.waiting import until
from support.worker import starting

_AT_ONCE: Final = 3
_OPTIONS: Final = ("--project", "race")


@pytest.mark.slow
def test_workers_that_start_at_once(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    rounds, waits = size(3, 30), []
    for number in range(rounds):
        with ExitStack() as started, Listener(own_broker, "race/assistant_response/#") as listener:
            began = time.monotonic()
            names = [f"w{number}-{letter}" for letter in "abc"[:_AT_ONCE]]
            workers = [started.enter_context(starting(own_broker, "--worker-id", name, *_OPTIONS)) for name in names]
            until(lambda: sum(worker.process.poll() is None for worker in workers) <= 1, 60)  # noqa: B023
            waits.append(time.monotonic() - began)
            (left,) = [worker for worker in workers if worker.process.poll() is None]
            left.says("ready: serving")
            refused = [worker for worker in workers if worker is not left]
            assert {worker.process.returncode for worker in refused} == {Exit.ID_TAKEN}
            assert not any("ready: serving" in worker.err for worker in refused)
            for question in ("first", "second"):
                listener.publish("race/user_input/s1", question)
                until(lambda: question in {heard.text for heard in listener.heard})  # noqa: B023
            assert [heard.text for heard in listener.heard] == ["first", "second"]
    report(47, f"{rounds} times {_AT_ONCE} at once: one stays; settled after {max(waits):.1f} s at most")
