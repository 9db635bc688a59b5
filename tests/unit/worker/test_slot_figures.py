"""What a slot has done, as the stats tell it."""

from __future__ import annotations

import threading

from inferbus_client.contract.presence import ModelStats, SlotStats, Stats, decode_announcement
from inferbus_worker.engines.breaker import BreakerState
from inferbus_worker.engines.figures import SlotFigures


def read(figures: SlotFigures) -> SlotStats:
    return figures.reading("ollama", "ready", active=1, limit=4)


def test_attempts_and_failures_by_kind_count_since_the_start() -> None:
    figures = SlotFigures()
    for fault in [None, "429", "429", "503", "cut"]:
        figures.ended(1.0, 0.0, fault=fault, is_retry=fault == "503")
    figures.end_interval()
    figures.end_interval()
    stats = read(figures)
    assert (stats.requests, stats.retries, stats.errors) == (5, 1, {"429": 2, "503": 1, "cut": 1})


def test_times_are_the_last_interval_s() -> None:
    figures = SlotFigures()
    for number in range(1, 101):
        figures.ended(float(number), number / 1000, number / 10)
    assert (read(figures).wait_ms, read(figures).latency_ms.p50) == (None, None)
    figures.end_interval()
    stats = read(figures)
    assert (stats.wait_ms, stats.first_token_ms) == (50.5, 5000)
    assert (stats.latency_ms.p50, stats.latency_ms.p95, stats.latency_ms.p99) == (50_000, 95_000, 99_000)
    assert read(figures) == stats
    figures.end_interval()
    assert (read(figures).wait_ms, read(figures).latency_ms.p99, read(figures).first_token_ms) == (None, None, None)


def test_how_fast_a_slot_refuses_is_no_latency() -> None:
    figures = SlotFigures()
    figures.ended(0.001, 0, fault="429")
    figures.ended(2.0, 0, 0.5)
    figures.end_interval()
    assert (read(figures).latency_ms.avg, read(figures).first_token_ms) == (2000, 500)


def test_a_slot_that_is_left_alone_is_not_called_ready() -> None:
    figures = SlotFigures()
    breakers: tuple[BreakerState, ...] = ("open", "half-open")
    for breaker in breakers:
        assert figures.reading("ollama", "ready", active=0, limit=4, breaker=breaker).state == breaker
    assert figures.reading("ollama", "down", active=0, limit=4, breaker="open").state == "down"


def test_they_travel_with_what_the_slot_says_of_itself() -> None:
    slot = SlotFigures().reading(
        "ollama",
        "ready",
        active=3,
        limit=4,
        breaker="half-open",
        headroom=0.5,
        memory_declared=10,
        memory_measured=2**33,
    )
    stats = Stats(worker="w", models={"phi": ModelStats(queued=2, state="ready", slots={"phi/ollama": slot})})
    assert decode_announcement(Stats, stats.encode()) == stats
    assert b'"memoryMeasured":8589934592' in stats.encode()


def test_no_attempt_of_many_threads_is_lost() -> None:
    figures = SlotFigures()

    def attempts() -> None:
        for _ in range(500):
            figures.ended(0.1, 0.0, 0.1, "429")

    threads = [threading.Thread(target=attempts) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (read(figures).requests, read(figures).errors) == (4000, {"429": 4000})
