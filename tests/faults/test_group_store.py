"""Trial 21: the store stalls, is killed, fails over, or loses a node, while a group of three has requests under way."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import pytest

from support.listener import Listener
from support.mosquitto import Mosquitto
from support.redis_cluster import RedisCluster, RedisSentinels
from support.redis_server import RedisServer
from support.requester import Requester
from support.sharing import keep_under_way, sharing, takeovers, under_way
from support.trials import size
from support.waiting import until
from support.worker import WorkerProcess

pytestmark = pytest.mark.slow

_WORKERS: Final = 3
_OUTSTANDING: Final = 12
#: Seconds: what is promised, and for a busy machine half a second more.
_REFUSED_WITHIN: Final = 1.5
_RECOVERED_WITHIN: Final = 5.0
#: Seconds, as it comes.
_LEASE: Final = 10.0
#: What all keys of the group have in common, so that one node has them.
_GROUP: Final = "{inferbus}"
#: Turns of over a second: some of them begin before a fault and end in it.
_SLOW: Final[dict[str, Any]] = {"simulated_first_token": "100ms", "simulated_per_token": "200ms"}


class _Bus(NamedTuple):
    """A group with requests under way, and who hears its replies."""

    workers: list[WorkerProcess]
    requester: Requester
    listener: Listener

    def load(self) -> None:
        """Have requests under way, and no more of them than there are."""
        enough = self.requester.ledger.replies + _OUTSTANDING
        keep_under_way(self.requester, _OUTSTANDING)
        until(lambda: self.requester.ledger.replies >= enough)
        self.requester.stop_sending()
        # They were begun together, and may have ended together: those behind them are on their way.
        until(lambda: under_way(self.requester.ledger))

    def refusals(self, seconds: float) -> float:
        """Ask again and again, for so long at least; the longest that a request waited for its refusal."""
        until_then, slowest = time.monotonic() + seconds, 0.0
        while time.monotonic() < until_then:
            slowest = max(slowest, self._asked("engine_unavailable"))
        return slowest

    def recovery(self) -> float:
        """Ask until somebody answers; seconds."""
        began, ends = time.monotonic(), [""]
        while ends != ["done"]:
            request = self.requester.send("again")
            until(lambda: self.requester.ledger.rows[request].ends)  # noqa: B023
            ends = self.requester.ledger.rows[request].ends
        return time.monotonic() - began

    def close_ledger(self, *, begins_anew: bool = False, refuses: bool = True) -> None:
        """Nothing is lost, nothing answered twice; and nothing that lived was taken from whoever had it.

        Args:
            begins_anew: whether what had begun may begin again.
            refuses: whether the store was away, so that there must have been refusals. Else there may be: of what was
                on its way to be accepted.
        """
        self.requester.settle()
        ledger = self.requester.ledger
        tally = ledger.tally()
        replies = [json.loads(heard.payload) for heard in self.listener.heard]
        assert (tally["lost"], ledger.differing, tally["corrupt"], tally["leaked"]) == (0, 0, 0, 0)
        assert {end for row in ledger.rows.values() if row.accepted for end in row.ends} == {"done"}
        if not begins_anew:
            assert takeovers(self.workers) == 0
            # Of what was taken as the store went nobody may have heard, and it is taken again: none that had begun.
            assert not {
                reply["requestId"] for reply in replies if reply["type"] == "delta" and not reply.get("run")
            } & {name for name, row in ledger.rows.items() if row.run}
        errors = [reply for reply in replies if reply["type"] == "error"]
        assert {(error["code"], error["retryAfterMs"] > 0) for error in errors} <= {("engine_unavailable", True)}
        assert errors or not refuses

    def _asked(self, expected: str) -> float:
        began = time.monotonic()
        request = self.requester.send("now")
        until(lambda: self.requester.ledger.rows[request].ends)
        assert self.requester.ledger.rows[request].ends == [expected]
        return time.monotonic() - began


@contextmanager
def bus(broker: Mosquitto, url: str) -> Iterator[_Bus]:
    with (
        sharing([broker] * _WORKERS, [url] * _WORKERS, "store", **_SLOW) as workers,
        Requester(broker, "store") as requester,
        Listener(broker, "store/assistant_response/#") as listener,
    ):
        yield _Bus(workers, requester, listener)


@pytest.mark.alone
def test_the_store_stalls(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """For less than a lease, and for longer than one."""
    with RedisServer() as store, bus(own_broker, store.url) as group:
        for stall in (1, 4, 10, 60)[: size(2, 4)]:
            group.load()
            store.pause()
            began = time.monotonic()
            refused = group.refusals(stall - 0.5)
            time.sleep(max(0.0, stall - (time.monotonic() - began)))
            store.resume()
            recovered = group.recovery()
            group.requester.settle()
            figure = (
                f"stalled for {stall} s: refused after {refused:.2f} s at most, answers again after {recovered:.1f} s"
            )
            report(21, figure)
            assert refused <= _REFUSED_WITHIN
            assert recovered <= _RECOVERED_WITHIN
        group.close_ledger()
        report(21, "all stalls", group.requester.ledger)


@pytest.mark.alone
def test_the_store_is_killed_and_comes_back(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """With what it had on its disk."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as store, bus(own_broker, store.url) as group:
        for down in (2, 10, 30)[: size(1, 3)]:
            group.load()
            store.kill()
            refused = group.refusals(down)
            store.start()
            recovered = group.recovery()
            group.requester.settle()
            figure = (
                f"killed for {down} s: refused after {refused:.2f} s at most, answers again after {recovered:.1f} s"
            )
            report(21, figure)
            assert refused <= _REFUSED_WITHIN
            assert recovered <= _RECOVERED_WITHIN
        group.close_ledger()
        report(21, "killed with its file", group.requester.ledger)


def test_the_store_is_emptied(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """By somebody's hand, or by one that came back without its file: what runs is answered, and the next one, too."""
    with RedisServer() as store, bus(own_broker, store.url) as group:
        group.load()
        with store.client() as client:
            client.flushall()
        group.recovery()
        group.close_ledger(refuses=False)
        report(21, "emptied", group.requester.ledger)


@pytest.mark.alone
def test_the_sentinels_have_the_replica_take_over(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    for way in ("killed", "stalled")[: size(1, 2)]:
        with RedisSentinels() as servers, bus(own_broker, servers.url) as group:
            group.load()
            if way == "killed":
                servers.first.kill()
            else:
                servers.first.pause()
            recovered = group.recovery()
            if way == "stalled":
                servers.first.resume()
            group.close_ledger()
            report(21, f"Sentinel, {way}: answers again {recovered:.1f} s after", group.requester.ledger)
            assert recovered <= _RECOVERED_WITHIN


def test_a_failover_without_a_replicas_word(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """Its loss is printed: what ran is answered all the same, what waited or was just answered may be forgotten."""
    with RedisSentinels() as servers, bus(own_broker, servers.url) as group:
        group.load()
        servers.replica.pause()
        group.load()
        servers.first.kill()
        servers.replica.resume()
        recovered = group.recovery()
        group.requester.settle_or_quiet(quiet=_LEASE + 5)
        ledger = group.requester.ledger
        figure = f"Sentinel, killed while its replica hung: answers again {recovered:.1f} s after"
        report(21, f"{figure}; {ledger.differing} answered in two ways", ledger)
        tally = ledger.tally()
        assert (tally["corrupt"], tally["leaked"]) == (0, 0)
        assert tally["lost"] <= _OUTSTANDING
        assert any("a failover now would lose it" in worker.log for worker in group.workers)


@pytest.mark.alone
def test_a_cluster_loses_a_node(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """That of the group, which decides on everything; and one that has histories alone, of which no request hears."""
    for whose in ("group", "histories")[: size(1, 2)]:
        with RedisCluster("--appendonly", "yes", replicated=True) as cluster, bus(own_broker, cluster.url) as group:
            sessions = [f"s{number}" for number in range(_OUTSTANDING)]
            first = [group.requester.send(session=session) for session in sessions]
            group.requester.settle()
            group.load()
            of_group = cluster.node_of(_GROUP)
            lost = of_group if whose == "group" else other_than(of_group, cluster)
            lost.kill()
            recovered = group.recovery()
            second = [group.requester.send(session=session) for session in sessions]
            group.close_ledger(begins_anew=whose == "histories", refuses=whose == "group")
            figure = f"Cluster, the node of {whose} is lost: answers again after {recovered:.1f} s"
            report(21, figure, group.requester.ledger)
            rows = group.requester.ledger.rows
            tokens = [
                (rows[one].prompt_tokens or 0, rows[other].prompt_tokens or 0)
                for one, other in zip(first, second, strict=True)
            ]
            assert all(before < after for before, after in tokens)
            assert recovered <= _RECOVERED_WITHIN


def test_a_cluster_moves_the_groups_slot(own_broker: Mosquitto, report: Callable[..., None]) -> None:
    """As its operator does who adds a node: for a while some keys are at the one and some at the other."""
    slowly = size(3, 30)
    with RedisCluster() as cluster, bus(own_broker, cluster.url) as group:
        keep_under_way(group.requester, _OUTSTANDING)
        until(lambda: group.requester.ledger.replies >= _OUTSTANDING)
        cluster.move(_GROUP, other_than(cluster.node_of(_GROUP), cluster), slowly=slowly)
        recovered = group.recovery()
        group.requester.stop_sending()
        group.close_ledger(refuses=False)  # they may have gone between one request and the next
        figure = f"Cluster, the slot of group moves within {slowly} s: answers again {recovered:.1f} s after"
        report(21, figure, group.requester.ledger)


def other_than(node: RedisServer, cluster: RedisCluster) -> RedisServer:
    return next(other for other in cluster.nodes if other is not node)
