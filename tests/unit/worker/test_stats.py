"""Counters, percentiles, and the estimate of the wait."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from inferbus_client.contract.presence import Latency, Level, ModelStats, SlotStats, Stats, decode_announcement
from inferbus_worker.chat import Usage
from inferbus_worker.counting import latency_of
from inferbus_worker.engines.base import BackendFault, EngineError
from inferbus_worker.stats_line import in_a_line
from support.rooms import Chunk, Rooms, Script, fail


def take(rooms: Rooms) -> Stats:
    """The figures after the interval that ends now."""
    rooms.meter.end_interval()
    return read(rooms)


def read(rooms: Rooms) -> Stats:
    return rooms.meter.reading(
        "w",
        queued=len(rooms.queue),
        queue_size=100,
        sessions=len(rooms.sessions),
        levels={"queue": Level(now=len(rooms.queue), bound=100)},
        replies_dropped=0,
    )


def lasting(rooms: Rooms, seconds: float, tokens: int = 1) -> Script:
    def script(_call: object) -> list[Chunk]:
        rooms.clock.pass_(seconds)
        return [Chunk("x", finish_reason="stop", usage=Usage(1, tokens))]

    return script


@pytest.mark.parametrize(
    ("count", "p50", "p95", "p99"),
    [
        (1, 1000, 1000, 1000),
        (2, 1000, 2000, 2000),
        (6, 3000, 6000, 6000),
        (100, 50_000, 95_000, 99_000),
        (10, 5000, 10_000, 10_000),
    ],
)
def test_percentiles_by_nearest_rank(count: int, p50: float, p95: float, p99: float) -> None:
    latency = latency_of([float(number) for number in range(1, count + 1)])
    assert (latency.p50, latency.p95, latency.p99) == (p50, p95, p99)


def test_no_latency_where_nothing_was_answered() -> None:
    assert take(Rooms()).latency_ms.p99 is None


def test_it_counts() -> None:
    rooms = Rooms()
    rooms.engine.script = lasting(rooms, 2, tokens=10)
    rooms.answer()
    rooms.engine.script = fail(EngineError("broken"))
    rooms.answer()
    rooms.ask(message="")
    stats = take(rooms)
    assert (stats.processed, stats.errors, stats.rejected) == (1, 1, {"invalid_request": 1})
    assert (stats.tokens_per_s, stats.requests_per_s, stats.uptime_s) == (5, 1, 2)
    assert (stats.latency_ms.p50, stats.latency_ms.p99, stats.latency_ms.avg) == (0, 2000, 1000)


def test_counters_go_on_and_rates_begin_anew() -> None:
    rooms = Rooms()
    rooms.answer()
    take(rooms)
    rooms.clock.pass_(10)
    stats = take(rooms)
    assert (stats.processed, stats.requests_per_s, stats.tokens_per_s) == (1, 0, 0)
    assert stats.latency_ms.avg is None


def test_to_read_them_changes_nothing() -> None:
    rooms = Rooms()
    rooms.engine.script = lasting(rooms, 2, tokens=10)
    rooms.answer()
    assert read(rooms) == read(rooms)
    assert not rooms.meter.quiet
    assert take(rooms).requests_per_s == 0.5


def test_the_line_says_no_capacity_that_is_not_known() -> None:
    stats = take(Rooms())
    assert " 0/- active" in in_a_line(stats.model_copy(update={"capacity": None}).model_dump())


def test_rates_are_the_last_interval_s_whenever_they_are_read() -> None:
    rooms = Rooms()
    rooms.engine.script = lasting(rooms, 2, tokens=10)
    assert (read(rooms).requests_per_s, read(rooms).tokens_per_s) == (None, None)
    rooms.answer()
    ended = take(rooms)
    rooms.answer()
    rooms.clock.pass_(30)
    later = read(rooms)
    assert (later.requests_per_s, later.tokens_per_s, later.latency_ms) == (0.5, 5, ended.latency_ms)
    assert (later.processed, later.uptime_s) == (2, 34)


def test_histograms_and_tokens_count_since_the_start() -> None:
    rooms = Rooms()
    rooms.engine.script = lasting(rooms, 2, tokens=10)
    first = take(rooms)
    rooms.ask("s1")
    rooms.ask("s2")
    rooms.work()
    rooms.answer("s3", reply="json", stream=True)
    second = take(rooms)
    totals = second.histograms["totalMs"].since(first.histograms["totalMs"])
    assert (totals.buckets["2000"], totals.buckets["4000"], totals.sum_ms) == (2, 1, 8000)
    assert second.histograms["queueMs"].buckets == {"1": 2, "2000": 1}
    assert second.histograms["firstTokenMs"].buckets == {"2000": 1}
    assert (second.prompt_tokens, second.completion_tokens) == (3, 30)
    assert decode_announcement(Stats, second.encode()) == second


def test_repeats_are_counted_and_slots_are_unknown_before_they_are_known() -> None:
    rooms = Rooms()
    ids = {"clientId": "c", "requestId": "r"}
    rooms.ask(**ids)
    rooms.ask(**ids)
    assert (read(rooms).repeated, read(rooms).capacity) == (1, None)
    rooms.pool.size = 8
    assert read(rooms).capacity == 8


def test_quiet_while_nothing_happens() -> None:
    rooms = Rooms()
    quiet = [rooms.meter.quiet]
    for happens in (lambda: rooms.ask(message=""), lambda: take(rooms), rooms.answer):
        happens()
        quiet.append(rooms.meter.quiet)
    assert quiet == [True, False, True, False]


def test_the_wait_is_unknown_before_the_first_turn() -> None:
    rooms = Rooms()
    rooms.pool.active = 1
    assert rooms.meter.wait_estimate(0) is None


def test_a_free_slot_means_no_wait() -> None:
    rooms = Rooms()
    rooms.pool.size = 4
    rooms.pool.active = 2
    assert rooms.meter.wait_estimate(1) == 0


def test_the_wait_follows_the_latest_turns() -> None:
    rooms = Rooms()
    rooms.engine.script = lasting(rooms, 8)
    rooms.answer()
    rooms.pool.size = rooms.pool.active = 4
    assert rooms.meter.wait_estimate(0) == 2
    assert rooms.meter.wait_estimate(7) == 16


def test_levels_travel_with_their_bounds() -> None:
    rooms = Rooms()
    rooms.ask()
    stats = take(rooms)
    assert stats.levels == {"queue": Level(now=1, bound=100)}
    decoded = decode_announcement(Stats, stats.encode())
    assert decoded == stats
    assert json.loads(stats.encode())["levels"] == {"queue": {"now": 1, "bound": 100}}


def test_an_older_worker_s_stats_have_none() -> None:
    stats = decode_announcement(Stats, b'{"worker": "w", "queued": 3}')
    assert stats is not None
    assert (stats.levels, stats.replies_dropped) == ({}, 0)


def test_as_many_slots_as_there_may_be_are_read_whatever_they_are_called() -> None:
    most = SlotStats(
        backend="tabbyapi",
        state="unavailable",
        active=4096,
        limit=4096,
        memory_declared=2**40,
        memory_measured=2**40,
        requests=10**9,
        errors=dict.fromkeys(get_args(BackendFault), 10**6),
        latency_ms=Latency(avg=12345.6, p50=12345.6, p95=12345.6, p99=12345.6),
    )
    stats = Stats(
        worker="w" * 64,
        models={
            f"{model:x>128}": ModelStats(slots={f"{model:x>128}/tabbyapi-{slot}": most for slot in range(64)})
            for model in range(6)
        },
    )
    assert decode_announcement(Stats, stats.encode()) == stats
