"""Trial 36: many requests at three workers, each in a session of its own. Store and workers reach a plateau."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import psutil
import pytest

from support.ledger import Ledger
from support.mosquitto import Mosquitto
from support.redis_server import RedisServer
from support.requester import Requester
from support.sharing import sharing
from support.soaking import MB, NOISE, SAMPLES, Sample, pace, sample
from support.trials import size
from support.waiting import until

_WORKERS: Final = 3
_WINDOW: Final = 200
#: Of the store: how many requests the last seconds had is a matter of chance, and what they left is still there.
_STORE_NOISE: Final = 20 * MB
_MOST_SESSIONS: Final = 300
#: What is kept for a time goes after so short a time that a short trial, too, sees it go.
_OPTIONS: Final[dict[str, Any]] = {
    "max_sessions": _MOST_SESSIONS,
    "rate_limit": "10/2s",
    "client_rate_limit": "1000000/2s",
    "token_budget": "100000/2s",
    "retry_memory": "2s",
}
#: Keys that a group has whatever it does, and those of what it keeps.
_GROUP: Final = {"schema", "mark", "sessions", "kept", "turns", "workers", "worker", "confirmed"}
_LASTING: Final = {*_GROUP, "session", "history"}
#: Keys that ring, and go by themselves after a minute.
_BELLS: Final = "bell"


@pytest.mark.slow
@pytest.mark.timeout(0)  # the long form is given its minutes; every wait in it has a limit
def test_sessions_come_and_go(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """Trial 36, with few sessions kept, so that nearly all are thrown away again."""
    count, seconds = size(6_000, 1_000_000), pace()
    with (
        RedisServer() as store,
        sharing([own_broker] * _WORKERS, [store.url] * _WORKERS, "soak", **_OPTIONS) as workers,
        Requester(own_broker, "soak", Ledger(keep=False)) as requester,
    ):
        processes = [psutil.Process(worker.pid) for worker in workers]
        samples: list[tuple[int, list[Sample]]] = []
        began = time.monotonic()
        for number in range(count):
            requester.send()
            if number % _WINDOW == _WINDOW - 1:
                until(lambda: requester.ledger.unanswered < _WINDOW, every=0.002)
                time.sleep(max(0.0, began + seconds * number / count - time.monotonic()))
            if number % (count // SAMPLES) == count // SAMPLES - 1:
                samples.append((used_memory(store), [sample(process) for process in processes]))
        requester.settle()
        took = time.monotonic() - began
        until(lambda: set(kinds(store)) <= _LASTING | {_BELLS})
        left, tally = kinds(store), requester.ledger.tally()
        (middle_store, middle), (last_store, last) = samples[len(samples) // 2], samples[-1]
        rss = ", ".join(f"{each.rss / MB:.0f}" for each in last)
        growths = [at_last.rss - before.rss for before, at_last in zip(middle, last, strict=True)]
        report(
            36,
            f"{count} session ids in {took / 60:.1f} min: Redis {samples[0][0] / MB:.1f} MB at first, "
            f"{last_store / MB:.1f} MB at last, second half {(last_store - middle_store) / MB:+.1f} MB; "
            f"RSS {rss} MB, second half {', '.join(f'{growth / MB:+.1f}' for growth in growths)} MB; "
            f"{sum(left.values())} keys are left of it all",
            requester.ledger,
        )
    assert (tally["terminal"], tally["lost"], tally["corrupt"], tally["leaked"]) == (count, 0, 0, 0)
    # On a machine that is busy with other things the store may once not answer in time, which is said at once.
    assert set(requester.ledger.outcomes) <= {"done", "engine_unavailable"}
    assert requester.ledger.outcomes["done"] > 0.99 * count
    assert left["session"] == left["history"] == _MOST_SESSIONS
    assert last_store - middle_store < _STORE_NOISE
    assert max(growths) < NOISE


def used_memory(store: RedisServer) -> int:
    with store.client() as client:
        info: Any = client.info("memory")
        return int(info["used_memory"])


def kinds(store: RedisServer) -> Counter[str]:
    """How many keys there are of each kind."""
    with store.client() as client:
        return Counter(kind_of(key.decode()) for key in client.scan_iter(count=1000))


def kind_of(key: str) -> str:
    """`inferbus:1:{group}:session:general/one` is a `session`, `inferbus:1:history:{group/…}` a `history`."""
    return "history" if ":history:" in key else key.partition("}:")[2].partition(":")[0]
