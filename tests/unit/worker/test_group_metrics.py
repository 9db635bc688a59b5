"""What a worker tells Prometheus of its group."""

from __future__ import annotations

import pytest

from inferbus_client.contract.presence import GroupStats, Stats
from inferbus_worker.ops.metrics import exposition

pytest.importorskip("prometheus_client")


def told(stats: Stats) -> str:
    return exposition(stats, is_ready=True, threads=1)[0].decode()


def test_a_worker_by_itself_tells_of_no_group() -> None:
    assert "inferbus_group" not in told(Stats(worker="w"))


def test_a_worker_of_a_group_tells_what_they_share() -> None:
    group = GroupStats(name="inferbus", workers=3, leases=7, queued=12, sessions=40, reached=False, reason="timed out")
    figures = told(Stats(worker="w", queued=2, group=group))
    for line in (
        'inferbus_group_workers{group="inferbus"} 3.0',
        'inferbus_group_leases{group="inferbus"} 7.0',
        'inferbus_group_requests_waiting{group="inferbus"} 12.0',
        'inferbus_group_sessions{group="inferbus"} 40.0',
        'inferbus_group_store_reached{group="inferbus"} 0.0',
        "inferbus_requests_waiting 2.0",
    ):
        assert line in figures
    assert "timed out" not in figures
