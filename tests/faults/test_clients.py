"""Trial 43: what a program does to a client, and what a network does: each caller hears of it at once, in its type."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from inferbus_client import Client, RequestTimeoutError
from support.fake_worker import FakeWorker
from support.mosquitto import Mosquitto
from support.trials import size


@pytest.fixture
def worker(broker: Mosquitto) -> Iterator[FakeWorker]:
    with FakeWorker(broker.port, project=f"clients-{uuid.uuid4().hex[:8]}") as worker:
        yield worker


# --- pacing ---


@pytest.mark.parametrize("sessions", [1, 10_000], ids=["one-session", "a-session-each"])
def test_a_burst_that_gave_up_leaves_no_slot_behind(
    broker: Mosquitto, worker: FakeWorker, report: Callable[..., None], sessions: int
) -> None:
    """A request that runs out of time while it waits to be sent owes nobody anything."""
    threads = size(200, 1000)
    with Client(broker.url, project=worker.project, pacing=1) as client, ThreadPoolExecutor(threads) as pool:

        def ask(number: int) -> bool:
            try:
                client.ask("x", session=f"burst-{number % sessions}", timeout=0.4, retries=0)
            except RequestTimeoutError:
                return False
            return True

        ask(0)
        answered = sum(pool.map(ask, range(threads)))
        began = time.monotonic()
        assert client.ask("after it", session="burst-0", timeout=20).text == "You said: after it"
        waited = time.monotonic() - began
    report(43, f"{threads} threads, {answered} answered within 0.4 s; the next ask took {waited:.2f} s")


def test_threads_with_a_question_each_do_not_wait_for_one_another(broker: Mosquitto, worker: FakeWorker) -> None:
    """Pacing is a session's own: 50 of them at the default pace would else take 24.5 s."""
    with Client(broker.url, project=worker.project) as client, ThreadPoolExecutor(50) as pool:
        began = time.monotonic()
        answers = list(pool.map(lambda number: client.ask("x", session=f"s{number}").text, range(50)))
        assert time.monotonic() - began < 12
    assert answers == ["You said: x"] * 50
