"""Trial 40: replies at QoS 1 with --ack after-reply, and a worker that is killed in the middle of a burst."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from support.mosquitto import Mosquitto
from support.requester import Requester
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

_OPTIONS: Final[dict[str, Any]] = {
    "ack": "after-reply", "reply_qos": 1, "rate_limit": "off", "queue_size": 10_000, "max_attempts": 1000
}  # fmt: skip


@pytest.mark.parametrize("window", [20, 65535])
@pytest.mark.slow
def test_sigkill_in_a_burst_loses_nothing(tmp_path: Path, window: int, report: Callable[..., None]) -> None:
    """A request was once acknowledged while its reply still waited in paho for one of 20 places in flight."""
    count, kills = size(2000, 9000), size(3, 10)
    with (
        Mosquitto("max_queued_messages 0", f"max_inflight_messages {window}") as broker,
        WorkerProcess(broker, project="burst", state_dir=tmp_path, **_OPTIONS) as worker,
        Requester(broker, "burst") as requester,
    ):
        for _ in range(count):
            requester.send()
        for number in range(kills):
            until(partial(_has_answers, requester, count * number // (2 * kills)), 60, every=0.001)
            worker.kill()
            worker.start()
        requester.settle()
        tally = requester.ledger.tally()
        report(40, f"{kills} kills in a burst, a window of {window}", requester.ledger)
    assert (tally["lost"], tally["corrupt"], tally["leaked"]) == (0, 0, 0)
    assert set(requester.ledger.outcomes) == {"done"}


def _has_answers(requester: Requester, count: int) -> bool:
    return requester.ledger.replies >= count
