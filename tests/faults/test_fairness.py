"""Trial 46: one user's flood of made-up sessions fills the queue. Everybody else is answered, and soon."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from support.mosquitto import Mosquitto
from support.requester import Requester
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

#: What one turn takes, and how many run at once: a full queue lasts for a minute.
_SLOW: Final[dict[str, Any]] = {"simulated_first_token": "100ms", "workers": 2, "rate_limit": "off"}
#: Of a thousand places each; the flood's part of them is answered in more than 40 s.
_SOON: Final = 15.0


@pytest.mark.parametrize("identity", ["topic", "none"])
def test_a_flood_of_one_user_s_sessions(broker: Mosquitto, report: Callable[..., None], identity: str) -> None:
    """Whoever is vouched for by the topic, and whoever says who he is by his `clientId`."""
    project, count = f"fair-{identity}", size(3000, 10_000)
    scopes = [f"{project}/users/{name}" if identity == "topic" else project for name in ("eve", "alice")]
    waits = []
    with (
        WorkerProcess(broker, project=project, identity=identity, drain_timeout="0s", **_SLOW),
        Requester(broker, scopes[0]) as eve,
        Requester(broker, scopes[1]) as alice,
    ):
        for _ in range(count):
            eve.send(clientId="eve")
        until(lambda: eve.ledger.heard_of == count)
        assert eve.ledger.outcomes["overloaded"] > 0
        for _ in range(size(5, 20)):
            asked = time.monotonic()
            alice.send(clientId="alice")
            alice.settle(_SOON)
            waits.append(time.monotonic() - asked)
        assert set(alice.ledger.outcomes) == {"done"}
        assert eve.ledger.tally()["accepted"] > 500
        report(
            46,
            f"{count} sessions of one user ({identity}): {eve.ledger.outcomes['overloaded']} refused; another's "
            f"{len(waits)} requests answered, the slowest after {max(waits):.2f} s",
        )
