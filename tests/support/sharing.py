"""Several workers that share a store, as processes of their own, and the requests that they have under way."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from support.ledger import Ledger
from support.redis_server import RedisServer
from support.requester import Requester, Where
from support.waiting import PATIENCE, until
from support.worker import WorkerProcess

#: Seconds for which the store need not hear of a worker: the least that may be asked for.
LEASE: Final = 2.0
#: Whoever takes over a job says so within its lease and this.
TAKE_OVER: Final = 2.0

_OPTIONS: Final[dict[str, Any]] = {
    "lease": f"{LEASE:g}s",
    "ack": "after-reply",
    "reply_qos": 1,
    "session_expiry": "1h",
    "rate_limit": "off",
    "workers": 8,
    "drain_timeout": "10s",
    "max_attempts": 1000,
}


@contextmanager
def sharing(
    brokers: Sequence[Where], stores: Sequence[str], project: str, **options: Any
) -> Iterator[list[WorkerProcess]]:
    """Workers that serve one project and have acknowledged nothing that is not in the store.

    Args:
        brokers: where each of them finds the broker.
        stores: where each of them finds the store.
        project: what they serve.
        **options: more of their flags.
    """
    with ExitStack() as running:
        several = [
            WorkerProcess(broker, project=project, state=store, **{**_OPTIONS, **options})  # type: ignore[arg-type]
            for broker, store in zip(brokers, stores, strict=True)
        ]
        with ThreadPoolExecutor(len(several)) as pool:
            list(pool.map(running.enter_context, several))
        yield several


def under_way(ledger: Ledger) -> dict[str, int]:
    """Requests that are accepted and have not ended, and of which run each was heard last."""
    return {name: row.run for name, row in ledger.rows.copy().items() if row.accepted and not row.ends}


def until_taken_over(ledger: Ledger, before: dict[str, int], since: float) -> float:
    """Wait until each of these has ended, or begun anew with another worker; seconds from then until the last has."""
    rows = ledger.rows
    until(lambda: all(rows[name].ends or rows[name].run > run for name, run in before.items()), PATIENCE)
    return time.monotonic() - since


def begun_anew(ledger: Ledger) -> int:
    """How many requests another worker began anew; of some of them nobody had heard a word when they were taken."""
    return sum(row.run > 0 for row in ledger.rows.values())


def keep_under_way(requester: Requester, count: int) -> None:
    """So many requests at any time, until `stop_sending`."""
    requester.answer_with_another()
    for _ in range(count):
        requester.send()


def until_busy(store: RedisServer, worker: WorkerProcess) -> None:
    """Wait until the store says that this worker has something to do."""
    with store.client() as client:
        until(lambda: client.keys(f"inferbus:1:{{inferbus}}:held:{worker.id}.*"))


def takeovers(workers: Sequence[WorkerProcess]) -> int:
    """How often one of them has said that it took up what others have lost."""
    return sum(worker.log.count("of lost workers: ") for worker in workers)
