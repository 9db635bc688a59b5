"""Trials 13 and 22: workers of a group that are killed, restarted one after the other, or stopped past their lease."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import pytest

from support.inferbus import inferbus
from support.mosquitto import Mosquitto
from support.redis_server import RedisServer
from support.requester import Requester
from support.sharing import (
    LEASE,
    TAKE_OVER,
    begun_anew,
    keep_under_way,
    sharing,
    takeovers,
    under_way,
    until_taken_over,
)
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

pytestmark = pytest.mark.slow

_WORKERS: Final = 3
_OUTSTANDING: Final = 15
#: A turn takes a third of a second, so that every moment of it can be met.
_SLOW: Final[dict[str, Any]] = {"simulated_first_token": "50ms", "simulated_per_token": "50ms"}


@pytest.fixture
def store() -> Iterator[RedisServer]:
    with RedisServer() as store:
        yield store


@pytest.mark.alone
def test_one_of_three_is_killed_at_random_points(
    own_broker: Mosquitto, store: RedisServer, report: Callable[..., None]
) -> None:
    """Trial 13: requests never stop coming. The dead one comes back, sometimes at once, sometimes when it is missed."""
    points, slowest = size(4, 100), 0.0
    with (
        sharing([own_broker] * _WORKERS, [store.url] * _WORKERS, "kill", **_SLOW) as workers,
        Requester(own_broker, "kill") as requester,
    ):
        keep_under_way(requester, _OUTSTANDING)
        for point in range(points):
            time.sleep(random.uniform(0, 1))  # noqa: S311 - no secret
            victim = random.choice(workers)  # noqa: S311
            open_before, killed = under_way(requester.ledger), time.monotonic()
            victim.kill()
            with ThreadPoolExecutor(1) as beside:
                comes_back = beside.submit(victim.start) if point % 2 else None
                slowest = max(slowest, until_taken_over(requester.ledger, open_before, killed))
                if comes_back is None:
                    victim.start()
                else:
                    comes_back.result()
        requester.stop_sending()
        requester.settle()
        tally, figure = requester.ledger.tally(), f"{points} points, taken over after {slowest:.1f} s at most"
        report(13, f"{figure}, {takeovers(workers)} times by others, lease {LEASE:g} s", requester.ledger)
        assert (tally["lost"], tally["corrupt"], tally["leaked"]) == (0, 0, 0)
        assert requester.ledger.differing == 0
        # On a machine with too much to do the store may be slow; nothing else is a reason to refuse anything.
        was_slow = any("does not answer in time" in worker.log for worker in workers)
        assert set(requester.ledger.outcomes) <= {"done", *(("engine_unavailable",) if was_slow else ())}
        assert slowest <= LEASE + TAKE_OVER
        assert takeovers(workers)


def test_a_rolling_restart_of_all_three(own_broker: Mosquitto, store: RedisServer, report: Callable[..., None]) -> None:
    """Trial 13: each leaves, by a signal or asked over the bus, and one of another name has come. Nobody comes back."""
    rounds, options = size(1, 10), {"remote_drain": True, **_SLOW}
    with ExitStack() as running, Requester(own_broker, "roll") as requester:
        workers = three(running, own_broker, store, **options)
        keep_under_way(requester, _OUTSTANDING)
        for _ in range(rounds):
            old, workers = workers, three(running, own_broker, store, **options)
            for number, worker in enumerate(old):
                until_answered(requester, _OUTSTANDING)
                if number % 2:
                    assert inferbus("drain", worker.id, "--broker", own_broker.url).returncode == 0
                assert worker.stop() == 0
                assert "the broker may still have requests" not in worker.log
        until_answered(requester, 2 * _OUTSTANDING)
        requester.stop_sending()
        requester.settle()
        tally = requester.ledger.tally()
        report(13, f"{rounds} rolling restarts of {_WORKERS}, nobody comes back", requester.ledger)
        assert (tally["lost"], tally["duplicate"], tally["corrupt"], tally["leaked"]) == (0, 0, 0, 0)
        assert set(requester.ledger.outcomes) == {"done"}
        assert all(row.run == 0 for row in requester.ledger.rows.values())


def three(running: ExitStack, broker: Mosquitto, store: RedisServer, **options: Any) -> list[WorkerProcess]:
    return running.enter_context(sharing([broker] * _WORKERS, [store.url] * _WORKERS, "roll", **options))


def until_answered(requester: Requester, count: int) -> None:
    """Until so many more requests have been."""
    enough = requester.ledger.replies + count
    until(lambda: requester.ledger.replies >= enough)


@pytest.mark.alone
def test_a_worker_that_was_stopped_past_its_lease(
    own_broker: Mosquitto, store: RedisServer, report: Callable[..., None]
) -> None:
    """Trial 22: what it had others have answered, and it says nothing more of it."""
    rounds = size(3, 30)
    with (
        sharing([own_broker] * _WORKERS, [store.url] * _WORKERS, "stop", **_SLOW) as workers,
        Requester(own_broker, "stop") as requester,
    ):
        keep_under_way(requester, _OUTSTANDING)
        for number in range(rounds):
            until_answered(requester, _OUTSTANDING)
            victim = workers[number % _WORKERS]
            had, began = under_way(requester.ledger), time.monotonic()
            with stopped(victim):
                assert until_taken_over(requester.ledger, had, began) <= LEASE + TAKE_OVER
        requester.stop_sending()
        requester.settle()
        ledger = requester.ledger
        tally, overlaps = ledger.tally(), sum(row.stale for row in ledger.rows.values())
        begun = begun_anew(ledger)
        report(22, f"{rounds} stops, {begun} requests begun anew, overlaps {overlaps}", ledger)
        assert begun
        assert (tally["lost"], ledger.differing, overlaps, tally["corrupt"], tally["leaked"]) == (0, 0, 0, 0, 0)
        # What the stopped one had half admitted it has refused.
        assert {end for row in ledger.rows.values() if row.accepted for end in row.ends} == {"done"}
        assert set(ledger.outcomes) <= {"done", "engine_unavailable"}


@contextmanager
def stopped(worker: WorkerProcess) -> Iterator[None]:
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker.pid, signal.SIGCONT)
