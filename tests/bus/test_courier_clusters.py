"""What carries calls to a store of several servers: one of them is lost, another takes its place, keys move."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from os import kill

import pytest

from inferbus_worker.state.redis.courier import Courier
from support.couriers import KEY, count, courier, plain, refusal
from support.redis_cluster import RedisCluster, RedisSentinels
from support.waiting import until

#: Within which a call has failed for sure, on a machine that is busy with other things.
_SOON = 2.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster("--appendonly", "yes", "--appendfsync", "always") as running:
        yield running


def histories(cluster: RedisCluster) -> list[str]:
    """A history on each node."""
    return [f"inferbus:1:history:{{{cluster.key_on(node)}}}" for node in cluster.nodes]


class TestCluster:
    def test_histories_go_to_their_nodes_and_all_else_to_the_group_s(self, cluster: RedisCluster) -> None:
        with courier(cluster.url) as one:
            keys = histories(cluster)
            answers = one.ask_all([count(f"{KEY}spread"), *(count(key, is_history=True) for key in keys)])
            assert answers == [1, 1, 1, 1]
            for key, node in zip(keys, cluster.nodes, strict=True):
                with node.client() as client:
                    assert client.execute_command("GET", key) == b"1"

    def test_one_known_node_is_enough(self, cluster: RedisCluster) -> None:
        url = f"redis+cluster://127.0.0.1:{cluster.nodes[1].port}"
        with courier(url) as one:
            assert one.ask(count(f"{KEY}few")) == 1

    def test_a_node_that_stalls_holds_up_its_own_histories_alone(self, cluster: RedisCluster) -> None:
        group = cluster.node_of(KEY)
        far, other = (node for node in cluster.nodes if node is not group)
        with courier(cluster.url) as one:
            keys = [f"inferbus:1:history:{{{cluster.key_on(node)}}}:stall" for node in (far, other)]
            one.ask_all([count(key, is_history=True) for key in keys])
            kill(far.pid, signal.SIGSTOP)
            try:
                heard: list[int] = []
                one.post(count(keys[0], is_history=True), heard.append, keeps=True)
                began = time.monotonic()
                assert one.ask(count(f"{KEY}stall")) == 1
                assert one.ask(count(keys[1], is_history=True)) == 2
                assert time.monotonic() - began < _SOON
                _, waited = refusal(lambda: one.ask(count(keys[0], is_history=True)))
                assert waited < _SOON
            finally:
                kill(far.pid, signal.SIGCONT)
            until(lambda: heard)

    def test_the_group_s_node_is_killed_and_comes_back(self, cluster: RedisCluster) -> None:
        group = cluster.node_of(KEY)
        with courier(cluster.url) as one:
            assert one.ask(count(f"{KEY}killed")) == 1
            group.kill()
            _, waited = refusal(lambda: one.ask(count(f"{KEY}killed")))
            assert waited < _SOON
            until(lambda: one.reason)
            heard: list[int] = []
            one.post(count(f"{KEY}killed"), heard.append, keeps=True)
            group.start()
            until(lambda: heard)
            assert heard == [2]

    def test_another_node_is_killed_and_the_cluster_is_down_until_it_is_back(self, cluster: RedisCluster) -> None:
        other = next(node for node in cluster.nodes if node is not cluster.node_of(KEY))
        with courier(cluster.url) as one:
            other.kill()
            try:
                until(lambda: _is_refused(one))
                assert one.reason is not None
            finally:
                other.start()
            until(lambda: one.is_here)
            assert one.ask(count(f"{KEY}down")) >= 1

    def test_keys_that_move_are_followed(self) -> None:
        with RedisCluster() as cluster, courier(cluster.url) as one:
            group = cluster.node_of(KEY)
            target = next(node for node in cluster.nodes if node is not group)
            history = f"inferbus:1:history:{{{cluster.key_on(group)}}}"
            cluster.move(KEY, target)
            cluster.move(history, target)
            assert one.ask(count()) == 1
            assert one.ask(count(history, is_history=True)) == 1
            with target.client() as client:
                assert client.execute_command("GET", f"{KEY}n") == b"1"
                assert client.execute_command("GET", history) == b"1"


def _is_refused(one: Courier) -> bool:
    try:
        one.ask(plain("GET"))
    except Exception:  # noqa: BLE001 - whatever it says
        return True
    return False


class TestSentinels:
    def test_the_replica_takes_over_and_what_was_waited_for_is_there(self) -> None:
        with RedisSentinels() as servers, courier(servers.url) as one:
            assert one.replicas == 1
            assert one.ask(count(name="commit")) == 1
            servers.first.kill()
            _, waited = refusal(lambda: one.ask(count(name="commit")))
            assert waited < _SOON
            heard: list[int] = []
            one.post(count(name="commit"), heard.append, keeps=True)
            until(lambda: heard)
            assert heard == [2]
            with servers.replica.client() as client:
                assert client.execute_command("GET", f"{KEY}n") == b"2"

    def test_a_server_that_was_only_stalled_is_not_written_to_again(self) -> None:
        with RedisSentinels() as servers, courier(servers.url) as one:
            kill(servers.first.pid, signal.SIGSTOP)
            heard: list[int] = []
            one.post(count(), heard.append, keeps=True)
            try:
                until(lambda: heard)
            finally:
                kill(servers.first.pid, signal.SIGCONT)
            assert one.ask(count()) == 2
            with servers.replica.client() as client:
                assert client.execute_command("GET", f"{KEY}n") == b"2"
