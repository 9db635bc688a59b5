"""Trials 1, 2, 5, 6 and 7: a broker that dies, stalls or drops messages, and one that sees two workers of one id."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import psutil
import pytest

from inferbus_client.exits import Exit
from support.mosquitto import Mosquitto
from support.requester import Requester
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

_OPTIONS: Final[dict[str, Any]] = {"rate_limit": "off", "queue_size": 5000, "max_message_bytes": 400_000}
_MB: Final = 1_000_000
#: Characters of a large text; in three bytes each, since the simulated engine's context is counted in characters.
_LARGE: Final = 100_000
_DIGITS: Final = str.maketrans("0123456789.", "〇一二三四五六七八九。")


def steady(requester: Requester, stop: threading.Event, pause: float) -> threading.Thread:
    """Send a request every `pause` seconds until told to stop."""

    def send() -> None:
        while not stop.wait(pause):
            requester.send()

    thread = threading.Thread(target=send, name="steady-requests")
    thread.start()
    return thread


@pytest.mark.parametrize("down", [1, 5] if size(1, 2) == 1 else [5, 20])
@pytest.mark.slow
def test_a_killed_broker(own_broker: Mosquitto, report: Callable[..., None], down: int) -> None:
    """Trial 1: all that was said is gone with it; the worker finds its way back, and new requests are answered."""
    stop = threading.Event()
    with (
        WorkerProcess(own_broker, project="down", **_OPTIONS) as worker,
        Requester(own_broker, "down") as requester,
    ):
        sender = steady(requester, stop, 0.02)
        try:
            until(lambda: requester.ledger.replies > 10)
            own_broker.kill()
            time.sleep(down)
            before = requester.ledger.replies
            own_broker.start()
            returned = time.monotonic()
            until(lambda: requester.ledger.replies > before)
            seconds = time.monotonic() - returned
        finally:
            stop.set()
            sender.join()
        requester.settle_or_quiet(2)
        report(1, f"down {down} s: first reply {seconds:.1f} s after the return", requester.ledger)
        late = [requester.send() for _ in range(100)]
        until(lambda: all(requester.ledger.rows[request].ends for request in late))
        tally = requester.ledger.tally()
        assert (tally["duplicate"], tally["corrupt"], tally["leaked"]) == (0, 0, 0)
        assert worker.process.poll() is None


@pytest.mark.slow
def test_a_stalled_broker(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 2: answers that cannot leave are bounded in bytes; over that they are dropped and counted."""
    seconds, bound = size(9, 30), 4 * _MB
    # One session is kept at most: histories have a bound of their own, and would hide what waits for the broker. All
    # are sent before the first of them is answered, also on a busy machine: answers would fill what may wait.
    options = {**_OPTIONS, "max_sessions": 1, "workers": 64, "simulated_first_token": "4s", "max_outbound_bytes": bound}
    with (
        WorkerProcess(own_broker, project="stall", **options) as worker,
        Requester(own_broker, "stall") as requester,
    ):
        for number in range(200):
            if number == 100:  # the first hundred show what the memory of a hundred answers is without any stall
                requester.settle()
            requester.send(text(number))
        until(lambda: requester.ledger.tally()["accepted"] >= 200)
        process = psutil.Process(worker.pid)
        before = process.memory_info().rss
        own_broker.pause()
        try:
            time.sleep(seconds)
            growth = process.memory_info().rss - before
        finally:
            own_broker.resume()
        requester.settle_or_quiet(5)
        tally = requester.ledger.tally()
        report(
            2,
            f"{seconds} s, 30 MB of answers: RSS growth {growth / _MB:.0f} MB at a bound of {bound // _MB} MB",
            requester.ledger,
        )
        assert growth < 60 * _MB
        assert tally["lost"] == 0 or "dropped a reply" in worker.log
        assert (tally["duplicate"], tally["corrupt"], tally["leaked"]) == (0, 0, 0)
        until(lambda: answers(requester), every=0.5)


def text(number: int) -> str:
    """300 kB, and in every part unlike every other number's."""
    word = f"{number:08d}.".translate(_DIGITS)
    return word * (_LARGE // len(word))


def answers(requester: Requester) -> bool:
    """Whether a new request is answered well."""
    request = requester.send()
    until(lambda: requester.ledger.rows[request].ends)
    return requester.ledger.rows[request].ends == ["done"]


def test_parallel_large_replies_under_back_pressure(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 5: eight threads answer 300 kB each while the broker stops and goes on; every byte is where it belongs."""
    count = size(48, 480)
    with WorkerProcess(own_broker, project="large", workers=8, **_OPTIONS) as worker:
        with Requester(own_broker, "large") as requester:
            for number in range(count):
                requester.send(text(number))
                if number % 12 == 11:
                    own_broker.pause()
                    time.sleep(0.3)
                    own_broker.resume()
            requester.settle()
            report(5, f"{count} answers of 300 kB", requester.ledger)
            tally = requester.ledger.tally()
        assert worker.process.poll() is None
    assert (tally["lost"], tally["duplicate"], tally["corrupt"], tally["leaked"]) == (0, 0, 0, 0)
    assert set(requester.ledger.outcomes) == {"done"}


@pytest.mark.slow
def test_two_workers_of_one_id(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 6: they do not kick each other for ever. The second ends, and says why; the first serves on.

    Again and again, as a supervisor starts it: the first loses its connection more often than would end it otherwise.
    """
    rounds, before, kicks = size(3, 10), 0, list[str]()
    with (
        WorkerProcess(own_broker, project="twins", **_OPTIONS) as first,
        Requester(own_broker, "twins") as requester,
    ):
        for _ in range(rounds):
            second = WorkerProcess(own_broker, project="twins", worker_id=first.id, **_OPTIONS)
            with second:
                one_ends(first, second)
                assert (first.process.poll(), second.process.returncode) == (None, Exit.ID_TAKEN)
                assert f"another worker already has the id '{first.id}': started 2" in second.log
                assert f", process {first.pid}; start this one with another --worker-id" in second.log
                until(lambda: answers(requester))
                late = [requester.send() for _ in range(20)]
                requester.settle()
                assert all(requester.ledger.rows[request].ends == ["done"] for request in late)
                kicks.append(f"{reconnects(first) - before} + {reconnects(second)}")
                before = reconnects(first)
        assert first.process.poll() is None
    report(6, f"{rounds} of {rounds}: the second ends with status 6; reconnects of both: {', '.join(kicks)}")


def one_ends(first: WorkerProcess, second: WorkerProcess) -> None:
    until(lambda: first.process.poll() is not None or second.process.poll() is not None)


def reconnects(worker: WorkerProcess) -> int:
    return worker.log.count('"connected again"')


@pytest.mark.slow
def test_a_burst_at_qos_0(report: Callable[..., None]) -> None:
    """Trial 7: a worker that does not read for a while. What the broker drops is lost, and nothing else goes wrong."""
    count = size(4000, 20_000)
    with (
        Mosquitto("max_queued_messages 100") as broker,
        WorkerProcess(broker, project="burst", request_qos=0, **_OPTIONS) as worker,
        Requester(broker, "burst", qos=0) as requester,
    ):
        worker.process.send_signal(signal.SIGSTOP)
        for _ in range(count):
            requester.send("x" * 2000)
        until(lambda: all(row.taken() for row in requester.ledger.rows.values()), every=0.2)
        worker.process.send_signal(signal.SIGCONT)
        requester.settle_or_quiet(4)
        tally = requester.ledger.tally()
        report(7, f"{count} x 2 kB: {100 * tally['lost'] / count:.1f} % lost", requester.ledger)
        late = requester.send()
        until(lambda: requester.ledger.rows[late].ends)
    assert tally["terminal"] + tally["lost"] == count
    assert tally["terminal"] > 0
    assert (tally["duplicate"], tally["corrupt"], tally["leaked"]) == (0, 0, 0)
