"""Trial 38: a worker of a group that sees the broker and not the store, or the store and not the broker."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from support.fault_proxy import Fault, FaultProxy
from support.listener import Listener
from support.mosquitto import Mosquitto
from support.redis_server import RedisServer
from support.requester import Requester
from support.sharing import LEASE, begun_anew, keep_under_way, sharing, under_way, until_busy, until_taken_over
from support.trials import size
from support.waiting import until

pytestmark = pytest.mark.slow

_WORKERS: Final = 3
_OUTSTANDING: Final = 12
_KEEPALIVE: Final = 5
_SLOW: Final[dict[str, Any]] = {
    "simulated_first_token": "50ms",
    "simulated_per_token": "50ms",
    "keepalive": _KEEPALIVE,
}

#: So slow that what a worker has is not over before it is cut off.
_SLOWER: Final = {**_SLOW, "simulated_per_token": "200ms"}


@pytest.fixture
def store() -> Iterator[RedisServer]:
    with RedisServer() as store:
        yield store


@contextmanager
def cut_off(proxy: FaultProxy) -> Iterator[None]:
    """Everything is swallowed; then all connections are reset."""
    proxy.fault = Fault(swallow=True)
    try:
        yield
    finally:
        proxy.reset_all()
        proxy.fault = Fault()


@pytest.mark.alone
def test_a_worker_that_sees_the_broker_and_not_the_store(
    own_broker: Mosquitto, store: RedisServer, report: Callable[..., None]
) -> None:
    """It refuses what it is dealt, in words; what it had others answer, and it says nothing more of that."""
    rounds = size(2, 20)
    with (
        FaultProxy(store.port) as proxy,
        sharing(
            [own_broker] * _WORKERS, [f"redis://{proxy.host}:{proxy.port}/0", store.url, store.url], "part", **_SLOWER
        ) as workers,
        Requester(own_broker, "part") as requester,
        Listener(own_broker, "part/assistant_response/#") as listener,
    ):
        keep_under_way(requester, _OUTSTANDING)
        for _ in range(rounds):
            until_answered(requester)
            until_busy(store, workers[0])
            had, began = under_way(requester.ledger), time.monotonic()
            with cut_off(proxy):
                gone = until_taken_over(requester.ledger, had, began)
                assert gone <= 2 * LEASE
                time.sleep(max(0.0, LEASE + 1 - gone))
        until_answered(requester)
        requester.stop_sending()
        refused = settled(requester, listener)
        begun = begun_anew(requester.ledger)
        assert begun
        assert refused
        report(38, f"{rounds} times without the store: {begun} begun anew, {refused} refused", requester.ledger)


@pytest.mark.alone
def test_a_worker_that_sees_the_store_and_not_the_broker(
    own_broker: Mosquitto, store: RedisServer, report: Callable[..., None]
) -> None:
    """What it has taken it gives back as soon as it notices; what it was dealt waits for it with the broker."""
    rounds, slowest = size(1, 20), 0.0
    with (
        FaultProxy(own_broker.port) as proxy,
        sharing([proxy, own_broker, own_broker], [store.url] * _WORKERS, "part", **_SLOW),
        Requester(own_broker, "part") as requester,
        Listener(own_broker, "part/assistant_response/#") as listener,
    ):
        keep_under_way(requester, _OUTSTANDING)
        for _ in range(rounds):
            until_answered(requester)
            time.sleep(random.uniform(0, 0.5))  # noqa: S311 - no secret
            had, began = under_way(requester.ledger), time.monotonic()
            with cut_off(proxy):
                until_taken_over(requester.ledger, had, began)
                slowest = max(slowest, time.monotonic() - began)
        until_answered(requester)
        requester.stop_sending()
        refused = settled(requester, listener)
        figure = f"{rounds} times without the broker: taken over after {slowest:.1f} s at a keepalive of {_KEEPALIVE} s"
        report(38, f"{figure}, {refused} refused", requester.ledger)
        assert slowest <= 2 * _KEEPALIVE + 2 * LEASE + 2


def test_what_is_delivered_again_is_answered_with_the_very_same_words(
    own_broker: Mosquitto, store: RedisServer, report: Callable[..., None]
) -> None:
    """What the worker said was lost, acknowledgements too; others have answered the requests before it was killed."""
    rounds = size(1, 20)
    with (
        FaultProxy(own_broker.port) as proxy,
        sharing([proxy, own_broker, own_broker], [store.url] * _WORKERS, "part", **_SLOW) as workers,
        Requester(own_broker, "part") as requester,
        Listener(own_broker, "part/assistant_response/#") as listener,
    ):
        for _ in range(rounds):
            keep_under_way(requester, _OUTSTANDING)
            until_answered(requester)
            proxy.way_out = 0
            until_answered(requester)
            requester.stop_sending()
            workers[0].kill()
            proxy.reset_all()
            proxy.way_out = None
            workers[0].start()
            requester.settle()
        refused = settled(requester, listener)
        figure = f"{rounds} times unheard by the broker and killed, {refused} refused"
        report(38, figure, requester.ledger)
        assert requester.ledger.tally()["repeated"]


def until_answered(requester: Requester) -> None:
    """Until as many more requests have been as are under way."""
    enough = requester.ledger.replies + _OUTSTANDING
    until(lambda: requester.ledger.replies >= enough)


def settled(requester: Requester, listener: Listener) -> int:
    """Nothing is lost, nothing answered differently twice; how many requests were refused, all of them in words."""
    requester.settle()
    ledger = requester.ledger
    tally = ledger.tally()
    assert (tally["lost"], ledger.differing, tally["corrupt"], tally["leaked"]) == (0, 0, 0, 0)
    assert {end for row in ledger.rows.values() if row.accepted for end in row.ends} == {"done"}
    errors = [json.loads(heard.payload) for heard in listener.heard if b'"error"' in heard.payload]
    assert all(error["code"] == "engine_unavailable" and error["retryAfterMs"] for error in errors)
    return len(errors)
