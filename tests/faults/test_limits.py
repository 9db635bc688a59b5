"""Trial 32: rate evasion. And every memory bound, while it is hammered: its level in the stats stays at or under it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Level, Stats, decode_announcement
from support.ledger import Ledger
from support.listener import Listener
from support.mosquitto import Mosquitto
from support.requester import Requester
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

_WINDOW: Final = 200
#: How much one client, and all together, may have in a window that is longer than any trial.
_CAP: Final = 100
_LIMIT: Final = f"{_CAP}/1h"


def flood(requester: Requester, count: int, text: str | None = None, **fields: Callable[[int], str]) -> float:
    """Send requests, each in a session of its own, with an answer to each.

    Returns:
        How many were answered per second.
    """
    began = time.monotonic()
    for number in range(count):
        requester.send(text, **{name: made_up(number) for name, made_up in fields.items()})
        if number % _WINDOW == _WINDOW - 1:
            until(lambda: requester.ledger.unanswered < _WINDOW, every=0.002)
    requester.settle()
    return count / (time.monotonic() - began)


def assert_capped(ledger: Ledger, count: int) -> None:
    """As many as the limit lets through are answered, and every other one is refused; nothing else happens."""
    assert ledger.outcomes == {"done": _CAP, "rate_limited": count - _CAP}
    tally = ledger.tally()
    assert (tally["accepted"], tally["terminal"]) == (_CAP, count)
    assert (tally["lost"], tally["duplicate"], tally["corrupt"], tally["leaked"]) == (0, 0, 0, 0)


def test_one_user_with_many_session_ids(broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 32, identity in the topic: neither sessions nor clientIds get a user more; another user is not touched."""
    count = size(2000, 10_000)
    with (
        WorkerProcess(broker, project="evade", identity="topic", client_rate_limit=_LIMIT),
        Requester(broker, "evade/users/eve") as eve,
        Requester(broker, "evade/users/alice") as alice,
    ):
        rate = flood(eve, count, clientId=lambda number: f"made-up-{number}")
        report(32, f"{count} session ids of one user: {eve.ledger.outcomes['done']} admitted, {rate:.0f}/s answered")
        assert_capped(eve.ledger, count)
        flood(alice, 10)
        assert alice.ledger.outcomes == {"done": 10}


def test_made_up_clients_with_flat_topics(broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 32, flat topics: made-up clientIds get around the client's limit, and the total one holds."""
    count = size(2000, 10_000)
    with (
        WorkerProcess(broker, project="evade-flat", client_rate_limit="2/1h", total_rate_limit=_LIMIT),
        Requester(broker, "evade-flat") as requester,
    ):
        rate = flood(requester, count, clientId=lambda number: f"made-up-{number}")
        report(
            32,
            f"{count} session ids and clientIds: {requester.ledger.outcomes['done']} admitted, {rate:.0f}/s answered",
        )
        assert_capped(requester.ledger, count)


# --- memory bounds ---

_BOUNDS: Final[dict[str, Any]] = {
    "queue_size": 20,
    "max_sessions": 30,
    "max_history_bytes": 100_000,
    "retry_memory_bytes": 100_000,
    "rate_limit_sessions": 40,
}
_HAMMERED: Final[dict[str, Any]] = {
    **_BOUNDS,
    "rate_limit": "1000/1h",
    "client_rate_limit": "1000/1h",
    "token_budget": "100000/1h",
    "workers": 1,
    "simulated_first_token": "1ms",
    "stats_interval": "50ms",
}
#: The name of each level, and its bound.
_LEVELS: Final = {
    "queue": _BOUNDS["queue_size"],
    "sessions": _BOUNDS["max_sessions"],
    "historyBytes": _BOUNDS["max_history_bytes"],
    "retryMemoryBytes": _BOUNDS["retry_memory_bytes"],
    "rateLimitSessions": _BOUNDS["rate_limit_sessions"],
    "rateLimitClients": _BOUNDS["rate_limit_sessions"],
    "tokenBudgetSessions": _BOUNDS["rate_limit_sessions"],
}


@pytest.fixture(scope="module")
def hammered(broker: Mosquitto) -> Iterator[list[Stats]]:
    """All stats of a worker whose every bound is small, from many sessions of many clients, small ones and large."""
    with (
        WorkerProcess(broker, project="hammer", **_HAMMERED) as worker,
        Listener(broker, topics.stats(worker.id)) as listener,
        Requester(broker, "hammer") as requester,
    ):
        for text in (None, "large " * 500):
            done = requester.ledger.outcomes["done"]
            while requester.ledger.outcomes["done"] < done + 200:
                flood(requester, 2 * _WINDOW, text, clientId=lambda number: f"c{number}")
        heard = len(listener.heard)
        listener.wait(heard + 2)
        yield stats_in([message.payload for message in listener.heard])
        assert set(requester.ledger.outcomes) <= {"done", "overloaded"}


def stats_in(payloads: list[bytes]) -> list[Stats]:
    found = [decode_announcement(Stats, payload) for payload in payloads]
    return [stats for stats in found if stats is not None]


@pytest.mark.parametrize("name", _LEVELS)
def test_a_level_stays_under_its_bound(name: str, hammered: list[Stats]) -> None:
    """It comes near its bound, so that the bound is what holds it."""
    readings = [stats.levels[name] for stats in hammered]
    assert {level.bound for level in readings} == {_LEVELS[name]}
    highest = max(level.now for level in readings)
    assert 0.8 * _LEVELS[name] <= highest <= _LEVELS[name]


def test_outbound_bytes_of_a_stalled_broker(own_broker: Mosquitto) -> None:
    """Answers that cannot leave are dropped when they are more than the bound, counted, and end in a small error."""
    # What the kernel takes for a broker that does not read is some megabytes: 26 are more than that and the bound.
    count, bound, workers, text = 400, 4_000_000, 16, "x" * 64_000
    options: dict[str, Any] = {
        "workers": workers,
        "rate_limit": "off",
        "max_sessions": 1,
        "max_outbound_bytes": bound,
        "simulated_first_token": "250ms",
        "stats_interval": "250ms",
    }
    with (
        WorkerProcess(own_broker, project="full", **options) as worker,
        Requester(own_broker, "full") as requester,
        Listener(own_broker, topics.stats(worker.id)) as listener,
    ):
        for _ in range(count):
            requester.send(text)
        until(lambda: requester.ledger.tally()["accepted"] == count)
        own_broker.pause()
        try:
            until(lambda: any(line["processed"] == count for line in logged(worker.log)), every=0.2)
            stalled = [Level(**line["levels"]["outboundBytes"]) for line in logged(worker.log)]
        finally:
            own_broker.resume()
        # Each thread may be about to hand over one more answer when the figure is read.
        assert max(level.now for level in stalled) <= bound + workers * len(text)
        assert 0.8 * bound <= stalled[-1].now <= bound
        requester.settle()
        ledger = requester.ledger.tally()
        listener.wait(len(listener.heard) + 2)
        last = stats_in([message.payload for message in listener.heard])[-1]
        assert ledger["lost"] == 0
        assert last.replies_dropped >= requester.ledger.outcomes["overloaded"] > 0
        assert (ledger["duplicate"], ledger["corrupt"], ledger["leaked"]) == (0, 0, 0)
        assert last.levels["outboundBytes"].now < 10_000


def logged(log: str) -> list[dict[str, Any]]:
    """The lines of stats in a worker's log."""
    lines = (json.loads(line) for line in log.splitlines() if line.startswith("{") and line.endswith("}"))
    return [line for line in lines if line.get("event") == "stats"]
