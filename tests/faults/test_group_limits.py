"""Trial 37: requests of one client at three workers at once. Together these admit what the limits say, exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from support.ledger import Ledger
from support.mosquitto import Mosquitto
from support.redis_server import RedisServer
from support.requester import Requester
from support.sharing import sharing
from support.trials import size
from support.waiting import until

_WORKERS: Final = 3
#: Requests that are under way at once: more than any limit.
_WINDOW: Final = 1000
#: In a window that is longer than any trial.
_SESSION, _CLIENT, _PROJECT, _TOTAL = 10, 100, 250, 300
_LIMITS: Final = {
    "rate_limit": f"{_SESSION}/1h",
    "client_rate_limit": f"{_CLIENT}/1h",
    "project_rate_limit": f"{_PROJECT}/1h",
    "total_rate_limit": f"{_TOTAL}/1h",
}


@pytest.mark.slow
def test_limits_hold_across_workers(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 37: each limit in its turn, with all on. A refusal counts in none: what one leaves others may have."""
    count = size(1_000, 10_000)

    def flood(project: str, client: Callable[[int], str], session: str | None = None) -> Ledger:
        with Requester(own_broker, project) as requester:
            for number in range(count):
                requester.send(session=session, clientId=client(number))
                if number % _WINDOW == _WINDOW - 1:
                    until(lambda: requester.ledger.unanswered < _WINDOW, every=0.02)
            requester.settle()
            return requester.ledger

    def another(number: int) -> str:
        return f"made-up-{number}"

    with (
        RedisServer() as store,
        sharing(
            [own_broker] * _WORKERS, [store.url] * _WORKERS, "one", extra=("--project", "two"), **_LIMITS
        ) as workers,
    ):
        client = flood("one", lambda _: "eve")
        session = flood("one", another, "kitchen")
        project = flood("one", another)
        total = flood("two", another)
    admitted = [let_through(ledger, count) for ledger in (client, session, project, total)]
    report(
        37,
        f"{count} requests at {_WORKERS} workers for each limit; admitted of one client {admitted[0]} (limit "
        f"{_CLIENT}), in one session {admitted[1]} ({_SESSION}), in the project {sum(admitted[:3])} ({_PROJECT}), in "
        f"all {sum(admitted)} ({_TOTAL})",
    )
    # A store that once, on a busy machine, does not answer in time may have counted what is refused for that.
    late = sum(ledger.outcomes["engine_unavailable"] for ledger in (client, session, project, total))
    for let, limit in (
        (admitted[0], _CLIENT),
        (admitted[1], _SESSION),
        (sum(admitted[:3]), _PROJECT),
        (sum(admitted), _TOTAL),
    ):
        assert limit - late <= let <= limit
    # Each of the workers has let some through.
    assert {row.worker for row in client.rows.values() if row.accepted} == {worker.id for worker in workers}


def let_through(ledger: Ledger, count: int) -> int:
    """How many the limits have let through. A session that is being answered has no room for another request."""
    tally = ledger.tally()
    assert (tally["terminal"], tally["lost"], tally["duplicate"], tally["corrupt"], tally["leaked"]) == (
        count,
        0,
        0,
        0,
        0,
    )
    assert set(ledger.outcomes) <= {"done", "rate_limited", "session_busy", "engine_unavailable"}
    assert tally["accepted"] == ledger.outcomes["done"]
    return ledger.outcomes["done"] + ledger.outcomes["session_busy"]
