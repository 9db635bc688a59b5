"""Trial 41: the worker's way out is blocked or slow, while it drains, drops, reconnects, or acknowledges after replies.

Every request ends once, or comes again where it is acknowledged after its reply; and nothing stays open for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast

import pytest

from support.fault_proxy import FaultProxy
from support.mosquitto import Mosquitto
from support.requester import Requester
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

_KB: Final = 1000
_DRAIN: Final = 20.0
#: What the promise adds to the drain timeout; twice that here, since the machine may be busy with other tests.
_GRACE: Final = 2 * 2.0
#: The ways in which requests are acknowledged and replies sent.
_WAYS: Final = {
    "on receipt, QoS 0": {"ack": "on-receipt", "reply_qos": 0},
    "on receipt, QoS 1": {"ack": "on-receipt", "reply_qos": 1},
    "after reply, QoS 0": {"ack": "after-reply", "reply_qos": 0},
    "after reply, QoS 1": {"ack": "after-reply", "reply_qos": 1},
}
every_way = pytest.mark.parametrize("way", _WAYS.values(), ids=_WAYS)


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    """It holds what nobody has read yet; by default that is a thousand messages."""
    with Mosquitto("max_queued_messages 0") as broker:
        yield broker


@pytest.fixture
def proxy(broker: Mosquitto) -> Iterator[FaultProxy]:
    with FaultProxy(broker.port) as proxy:
        yield proxy


@pytest.fixture
def options(tmp_path: Path, way: dict[str, Any]) -> dict[str, Any]:
    """A worker that is asked by many at once."""
    bounds = {"rate_limit": "off", "queue_size": 400, "workers": 64, "max_sessions": 1}
    return {**bounds, **way, "state_dir": tmp_path, "drain_timeout": f"{_DRAIN}s"}


@every_way
def test_answers_that_are_dropped_end_in_an_error(
    broker: Mosquitto, proxy: FaultProxy, options: dict[str, Any], report: Callable[..., None]
) -> None:
    """The way out is blocked until every answer has been made, and most had to go: each request still ends, once."""
    count, bound = size(200, 400), 1_000_000
    options |= {"max_outbound_bytes": bound, "stats_interval": "100ms", "simulated_first_token": "300ms"}
    with (
        WorkerProcess(cast("Mosquitto", proxy), project="drop", **options) as worker,
        Requester(broker, "drop") as requester,
    ):
        for _ in range(count):
            requester.send("x" * 50_000)
        until(lambda: requester.ledger.heard_of == count, 60)
        proxy.way_out = 0
        until(lambda: f'"processed": {count}' in worker.log, 60)
        proxy.way_out = None
        requester.settle(60)
        tally, outcomes = requester.ledger.tally(), dict(requester.ledger.outcomes)
        report(
            41,
            f"blocked while {count} answers of 50 kB are made, bound {bound // _KB} kB: {outcomes}",
            requester.ledger,
        )
        assert (tally["lost"], tally["duplicate"], tally["corrupt"], tally["leaked"]) == (0, 0, 0, 0)
        assert set(outcomes) == {"done", "overloaded"}
        late = [requester.send() for _ in range(300)]
        requester.settle(60)
        assert {end for request in late for end in requester.ledger.rows[request].ends} == {"done"}
