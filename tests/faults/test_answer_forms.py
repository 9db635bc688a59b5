"""Trial 48 with a real vLLM: schemas of strangers, as bad as they can be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from support.mosquitto import Mosquitto
from support.requester import Requester
from support.schemas import WORST, patterns
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

#: What ended the worker, or held up everybody, before there were bounds.
_BEYOND: Final[dict[str, Any]] = {
    "30,000 groups": patterns("(" * 30_000 + ")" * 30_000),
    "600 bounded arrays": {
        "anyOf": [{"type": "array", "items": {"type": "string", "maxLength": 1000}, "maxItems": 1000}] * 600
    },
    "a step of 1,234,567": {"type": "integer", "multipleOf": 1_234_567},
}
_PLAIN_SECONDS: Final = 20.0


@pytest.fixture
def requester(broker: Mosquitto) -> Iterator[Requester]:
    with Requester(broker, "engine", echo=False) as requester:
        yield requester


def ask(requester: Requester, schema: object, **fields: Any) -> str:
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return requester.send("Hello", maxTokens=8, params={"response_format": shape}, **fields)


def test_schemas_as_bad_as_can_be(
    real_worker: WorkerProcess, requester: Requester, report: Callable[..., None]
) -> None:
    """Each is answered, refused in words or told to come back; nobody who asks plainly waits for that."""
    forms, plain, slowest = [], [], 0.0
    for _ in range(size(1, 20)):
        for schema in [*_BEYOND.values(), *WORST.values()]:
            forms.append(ask(requester, schema))
            began = time.monotonic()
            plain.append(requester.send("Hello", maxTokens=5))
            until(lambda: requester.ledger.rows[plain[-1]].ends, _PLAIN_SECONDS)
            slowest = max(slowest, time.monotonic() - began)
    requester.settle()
    ends = {tuple(requester.ledger.rows[request].ends) for request in forms}
    report(48, f"{len(forms)} schemas, a plain question beside each: the slowest {slowest:.2f} s", requester.ledger)
    assert ends <= {("done",), ("invalid_request",)}
    assert {tuple(requester.ledger.rows[request].ends) for request in plain} == {("done",)}
    assert real_worker.process.poll() is None


def test_a_crowd_of_them(real_worker: WorkerProcess, requester: Requester, report: Callable[..., None]) -> None:
    """All at once, cancelled by their deadlines or not: half of the workers is the most that they get."""
    crowd = [
        ask(requester, schema, **fields)
        for schema in list(WORST.values())[: size(16, 100)]
        for fields in ({}, {"deadlineMs": 300}, {})
    ]
    plain = [requester.send("Hello", maxTokens=5) for _ in range(8)]
    requester.settle()
    ends = {tuple(requester.ledger.rows[request].ends) for request in crowd}
    report(48, f"{len(crowd)} at once beside {len(plain)} plain questions", requester.ledger)
    assert ends <= {("done",), ("invalid_request",), ("overloaded",), ("deadline_exceeded",)}
    assert {tuple(requester.ledger.rows[request].ends) for request in plain} == {("done",)}
    assert real_worker.process.poll() is None
    assert not [line for line in real_worker.log.splitlines() if '"level": "error"' in line]
