"""Trials 9, 10 and 11: a worker that is told to stop answers what it holds, and ends in its time (promise 4)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest

from support.mosquitto import Mosquitto
from support.requester import Requester
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

_DRAIN: Final = 3.0
#: What the promise adds to the drain timeout; five times that here, since the machine may be busy with other
#: things. What it takes is reported.
_GRACE: Final = 5 * 2.0
#: So many may wait for the worker in Mosquitto, with room to spare.
_BROKER_HOLDS: Final = 500
#: Answers of three words that take 10 s: they cannot finish within the drain timeout.
_LONG: Final[dict[str, Any]] = {"simulated_per_token": "5s"}
_SHORT: Final[dict[str, Any]] = {"simulated_per_token": "20ms"}
_OPTIONS: Final[dict[str, Any]] = {
    "project": "stop", "drain_timeout": f"{_DRAIN}s", "workers": 32, "rate_limit": "off", "queue_size": 5000
}  # fmt: skip


def admitted(requester: Requester, count: int) -> None:
    """Send so many requests of three words, and wait until all are admitted.

    In parts: a broker drops what is over its own queue for one client (Mosquitto's is 1,000 messages).
    """
    for sent in range(count):
        requester.send("one two three")
        if sent % _BROKER_HOLDS == 0:
            until(partial(_heard_of, requester, sent + 1), 60)
    until(partial(_heard_of, requester, count), 60)


def _heard_of(requester: Requester, count: int) -> bool:
    return requester.ledger.heard_of >= count


def seconds_to_end(worker: WorkerProcess) -> float:
    """From now on; fails where promise 4 is broken by far."""
    began = time.monotonic()
    worker.process.wait(_DRAIN + _GRACE + 5)
    seconds = time.monotonic() - began
    assert seconds < _DRAIN + _GRACE
    return seconds


@pytest.mark.parametrize("speed", [_SHORT, _LONG], ids=["finishes", "does not finish"])
@pytest.mark.alone
def test_sigterm_with_many_in_flight(own_broker: Mosquitto, report: Callable[..., None], speed: dict[str, Any]) -> None:
    """Trial 9: all are answered, with an answer where there is time for it, else with an error."""
    count = size(100, 2000)
    with WorkerProcess(own_broker, **_OPTIONS, **speed) as worker, Requester(own_broker, "stop") as requester:
        admitted(requester, count)
        worker.process.send_signal(signal.SIGTERM)
        seconds = seconds_to_end(worker)
        requester.settle()
        figure = f"exit {worker.process.returncode} after {seconds:.1f} s at a drain timeout of {_DRAIN:g} s"
        report(9, f"{figure}, outcomes {dict(requester.ledger.outcomes)}", requester.ledger)
        tally = requester.ledger.tally()
    assert worker.process.returncode == 0
    assert (tally["lost"], tally["duplicate"], tally["corrupt"], tally["leaked"]) == (0, 0, 0, 0)
    assert set(requester.ledger.outcomes) <= {"done", "shutting_down"}
    assert (requester.ledger.outcomes["done"] > 0) == (speed is _SHORT)


@pytest.mark.alone
def test_sigterm_while_the_broker_stalls(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 10: nobody can be told, and the process ends all the same."""
    with WorkerProcess(own_broker, **_OPTIONS, **_LONG) as worker, Requester(own_broker, "stop") as requester:
        admitted(requester, size(20, 500))
        own_broker.pause()
        try:
            worker.process.send_signal(signal.SIGTERM)
            seconds = seconds_to_end(worker)
        finally:
            own_broker.resume()
        requester.settle_or_quiet(1)
        report(10, f"ended after {seconds:.1f} s at a drain timeout of {_DRAIN:g} s", requester.ledger)
        assert "done" not in requester.ledger.outcomes


@pytest.mark.alone
def test_a_second_sigterm_to_the_group(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 11: the second ends the waiting; what runs ends with an error, never with half an answer."""
    count = size(20, 500)
    with WorkerProcess(own_broker, **_OPTIONS, **_LONG) as worker, Requester(own_broker, "stop") as requester:
        admitted(requester, count)
        # It shares our process group; a group of its own would be a different start. Each of the group's signals
        # reaches the worker itself, and the engine's processes have been tried for theirs (tests/engine).
        for _ in range(2):
            os.kill(worker.pid, signal.SIGTERM)
            time.sleep(0.3)
        seconds = seconds_to_end(worker)
        requester.settle()
        truncated = requester.ledger.outcomes["done"]
        report(11, f"ended {seconds:.1f} s after the second one, truncated {truncated}", requester.ledger)
        assert dict(requester.ledger.outcomes) == {"shutting_down": count}
    assert worker.process.returncode == 130
