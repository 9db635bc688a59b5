"""What a worker says of its models and slots: bounded, and no trouble for those who do not know of it."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from inferbus_client.contract.presence import ModelStats, Presence, SlotStats, Stats, decode_announcement

SLOT: Final = {
    "backend": "ollama",
    "state": "ready",
    "active": 3,
    "limit": 8,
    "memoryDeclared": 10,
    "memoryMeasured": 20,
    "requests": 7,
    "errors": {"429": 2},
    "retries": 1,
    "waitMs": 0.5,
    "latencyMs": {"avg": None, "p50": 1.0, "p95": 2.0, "p99": 3.0},
    "firstTokenMs": 4.0,
    "breaker": "half-open",
    "headroom": 0.25,
}


def presence(**more: Any) -> Presence | None:
    return decode_announcement(Presence, json.dumps({"worker": "w", "state": "ready", **more}).encode())


def stats(**more: Any) -> Stats | None:
    return decode_announcement(Stats, json.dumps({"worker": "w", **more}).encode())


def test_they_are_spelt_as_all_else_on_the_wire() -> None:
    models = {"phi": {"queued": 2, "state": "ready", "slots": {"phi/ollama": SLOT}}}
    told = stats(models=models)
    assert told is not None
    assert told.models["phi"].slots["phi/ollama"].memory_measured == 20
    assert json.loads(told.encode())["models"] == models


def test_an_older_worker_says_nothing_of_them_and_a_newer_one_may_have_other_words() -> None:
    old, new = presence(), presence(models={"phi": "sleeping"})
    assert old is not None
    assert new is not None
    assert (old.models, new.models) == ({}, {"phi": "sleeping"})
    sparse = stats(models={"phi": {"slots": {"one": {"breaker": "ajar", "colour": "red"}}}})
    assert sparse is not None
    assert sparse.models == {"phi": ModelStats(slots={"one": SlotStats(breaker="ajar")})}


@pytest.mark.parametrize(
    "models",
    [
        {f"model {number}": "ready" for number in range(101)},
        {"m" * 129: "ready"},
        {"m": "r" * 33},
        {"m": {"state": "ready"}},
    ],
    ids=["many", "long name", "long state", "not text"],
)
def test_a_presence_with_more_than_a_page_can_show_is_none(models: dict[str, Any]) -> None:
    assert presence(models=models) is None


@pytest.mark.parametrize(
    "slot",
    [
        {"backend": "b" * 33},
        {"breaker": "b" * 33},
        {"errors": {str(number): 1 for number in range(101)}},
        {"errors": {"e" * 33: 1}},
        {"errors": {"429": 2**63}},
        {"memoryMeasured": 10**30},
        {"active": 10**4000},
    ],
    ids=lambda slot: next(iter(slot)),
)
def test_stats_with_more_than_a_page_can_show_are_none(slot: dict[str, Any]) -> None:
    assert stats(models={"m": {"slots": {"s": slot}}}) is None
    assert stats(models={"m": {"slots": {f"s{number}": {} for number in range(101)}}}) is None
    assert stats(models={"m": {"slots": {"s" * 193: {}}}}) is None
