"""What carries calls to a store, on a real one: what is asked is answered or has failed in time, whatever happens."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from os import kill
from typing import cast

import pytest
from redis import Redis

from inferbus_worker.settings.store_url import StoreUrl
from inferbus_worker.state.errors import StoreAnswerError, StoreAwayError, StoreError
from inferbus_worker.state.redis.calls import Call
from inferbus_worker.state.redis.connection import Store
from inferbus_worker.state.redis.courier import Courier
from support.couriers import KEY, SCRIPTS, count, courier, plain, refusal
from support.nowhere import black_hole, mute, nobody
from support.redis_server import RedisServer
from support.waiting import until

#: Within which a call has failed for sure, on a machine that is busy with other things.
_SOON = 2.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer("--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0") as running:
        yield running


@pytest.fixture
def carrying(server: RedisServer) -> Iterator[Courier]:
    with courier(server.url) as one:
        yield one


def total(server: RedisServer) -> int:
    with server.client() as client:
        answer = client.execute_command("GET", f"{KEY}n")
        return int(answer or 0)


class TestAsking:
    def test_is_answered_by_scripts_and_by_plain_commands(self, carrying: Courier) -> None:
        assert carrying.ask(count(by=3)) == 3
        assert carrying.ask(plain("GET")) == b"3"
        assert carrying.ask_all([count(), plain("GET"), count()]) == [4, b"4", 5]
        assert carrying.ask_all([]) == []

    def test_from_many_threads_goes_in_few_round_trips(self, carrying: Courier, server: RedisServer) -> None:
        with ThreadPoolExecutor(64) as threads:
            answers = list(threads.map(lambda _: carrying.ask(count(), 30), range(2000)))
        assert sorted(answers) == list(range(1, 2001))
        assert total(server) == 2000

    def test_what_is_posted_comes_in_its_order(self, carrying: Courier) -> None:
        heard: list[int] = []
        for _ in range(100):
            carrying.post(count(), heard.append)
        until(lambda: len(heard) == 100)
        assert heard == list(range(1, 101))

    def test_an_error_in_a_script_is_said_to_who_asked_and_to_nobody_else(self, carrying: Courier) -> None:
        error, _ = refusal(lambda: carrying.ask(Call("fail", (f"{KEY}n",), (), int)))
        assert isinstance(error, StoreAnswerError)
        error, _ = refusal(lambda: carrying.ask(Call("count", (f"{KEY}n",), cast("tuple[str]", (None,)), int)))
        assert "cannot be sent" in error.reason
        assert carrying.is_here
        assert carrying.ask(count()) == 1

    def test_what_fails_in_somebody_s_hands_leaves_the_others_alone(self, carrying: Courier) -> None:
        carrying.post(count(), list[int]().remove)
        assert carrying.ask(count()) == 2

    def test_a_script_that_the_store_has_forgotten_is_sent_again(self, carrying: Courier, server: RedisServer) -> None:
        with server.client() as client:
            client.script_flush()
        assert carrying.ask_all([count(), count()]) == [1, 2]
        assert carrying.is_here

    def test_much_at_once_goes_in_parts(self, carrying: Courier) -> None:
        large = b"x" * 300_000
        answers = carrying.ask_all([plain("SET", large), plain("STRLEN")] * 10, 30)
        assert answers == [b"OK", 300_000] * 10


class TestAway:
    def test_a_store_that_stalls_refuses_within_a_second_and_loses_nothing_that_is_kept(
        self, carrying: Courier, server: RedisServer
    ) -> None:
        changes: list[bool] = []
        carrying.on_change = lambda: changes.append(carrying.is_here)
        kill(server.pid, signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(16) as threads:
                found = list(threads.map(lambda _: refusal(lambda: carrying.ask(count())), range(16)))
            assert max(waited for _, waited in found) < _SOON
            until(lambda: not carrying.is_here)
            error, waited = refusal(lambda: carrying.ask(count()))
            assert waited < 0.2  # it is known to be away
            assert "does not answer in time" in error.reason
            assert carrying.reason == error.reason
            heard: list[int] = []
            carrying.post(count("inferbus:1:{test}:kept"), heard.append, keeps=True)
        finally:
            kill(server.pid, signal.SIGCONT)
        until(lambda: heard)
        assert carrying.is_here
        assert carrying.here_since is not None
        assert changes == [False, True]
        assert carrying.ask(plain("EXISTS")) in {0, 1}

    def test_a_store_that_is_killed_and_started_again_has_what_it_confirmed(
        self, carrying: Courier, server: RedisServer
    ) -> None:
        confirmed = [carrying.ask(count()) for _ in range(50)]
        server.kill()
        error, waited = refusal(lambda: carrying.ask(count()))
        assert isinstance(error, StoreAwayError)
        assert waited < _SOON
        heard: list[int] = []
        carrying.post(count(by=1000), heard.append, keeps=True)
        carrying.post(count(), heard.append)  # is for nobody to hear of
        server.start()
        until(lambda: heard)
        assert total(server) == confirmed[-1] + 1000
        assert carrying.ask(count()) == 1051

    @pytest.mark.parametrize(
        ("somewhere", "said"),
        [(nobody, "Connection refused"), (black_hole, "does not answer in time"), (mute, "does not answer in time")],
    )
    def test_nobody_is_there_from_the_start(
        self, somewhere: Callable[[], AbstractContextManager[str]], said: str
    ) -> None:
        with somewhere() as url:
            one = Courier(Store(StoreUrl.parse(url.replace("mqtt", "redis"))), KEY, SCRIPTS)
            one.start()
            _, waited = refusal(lambda: one.ask(count()))
            assert waited < _SOON
            until(lambda: one.reason and said in one.reason)
            one.stop(5)

    def test_a_script_that_runs_for_ever_makes_it_away_until_that_is_ended(
        self, carrying: Courier, server: RedisServer
    ) -> None:
        with server.client() as client:
            client.config_set("lua-time-limit", 50)
        error, waited = refusal(lambda: carrying.ask(Call("spin", (f"{KEY}n",), (), int)))
        assert waited < _SOON
        until(lambda: carrying.reason and "busy with a script" in carrying.reason)
        error, _ = refusal(lambda: carrying.ask(count()))
        assert isinstance(error, StoreAwayError)
        with server.client() as client:
            client.script_kill()
        until(lambda: carrying.is_here)
        assert carrying.ask(count()) == 1

    def test_a_full_store_is_said_and_what_is_kept_goes_in_when_there_is_room(
        self, carrying: Courier, server: RedisServer
    ) -> None:
        with server.client() as client:
            client.config_set("maxmemory", 1)
            error, _ = refusal(lambda: carrying.ask(count()))
            assert "is full (its maxmemory)" in error.reason
            assert not carrying.is_here
            assert carrying.reason == error.reason
            assert carrying.ask(plain("GET")) is None  # what needs no room goes on
            assert carrying.ask(plain("DEL")) == 0
            heard: list[int] = []
            carrying.post(count(), heard.append, keeps=True)
            refusal(lambda: carrying.ask(count()))
            client.config_set("maxmemory", 0)
        until(lambda: heard)
        until(lambda: carrying.is_here)
        assert heard == [1]

    def test_a_key_of_somebody_else_s_in_the_place_of_ours_is_named_until_it_is_gone(
        self, carrying: Courier, server: RedisServer
    ) -> None:
        key = f"{KEY}lengths"
        length = Call("HINCRBY", (key,), ("lane", 1), int)
        with server.client() as client:
            client.set(key, "x")
            error, _ = refusal(lambda: carrying.ask_all([length, length]))
            assert isinstance(error, StoreAwayError)
            assert f"something of somebody else's (string) at {key}, where a group keeps its own (hash)" in error.reason
            until(lambda: carrying.refusal)  # it was tried again
            assert carrying.here_since is None
            heard: list[int] = []
            carrying.post(length, heard.append, keeps=True)
            error, _ = refusal(lambda: carrying.ask(count()))
            assert key in error.reason
            client.delete(key)
        until(lambda: heard)
        assert heard == [1]
        assert carrying.is_here
        assert carrying.refusal is None

    def test_a_store_that_throws_away_is_warned_of_once_however_often_it_is_reached(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with RedisServer("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru") as server:
            with courier(server.url) as carrying, server.client() as client:
                since = carrying.here_since
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                with suppress(StoreError):  # which is how it notices
                    carrying.ask(count())
                until(lambda: carrying.here_since not in {None, since})
            warned = [record.getMessage() for record in caplog.records if "maxmemory" in record.getMessage()]
        (said,) = warned
        assert said.startswith(f"the store at 127.0.0.1:{server.port}: maxmemory 64 MiB, maxmemory-policy allkeys-lru")
        assert said.endswith("Say maxmemory-policy noeviction in the store's configuration.")

    def test_a_store_that_throws_nothing_away_is_not_warned_of(
        self, carrying: Courier, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert carrying.ask(count()) == 1
        assert "maxmemory" not in caplog.text

    def test_a_store_that_loads_its_data_or_has_become_a_replica_is_away(
        self, carrying: Courier, server: RedisServer
    ) -> None:
        with server.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", 1)
            error, _ = refusal(lambda: carrying.ask(count()))
            assert "replica" in error.reason
            until(lambda: not carrying.is_here)
            client.execute_command("REPLICAOF", "NO", "ONE")
        until(lambda: carrying.is_here)
        assert carrying.ask(count()) == 1


class TestStopping:
    def test_sends_what_waits_and_ends(self, server: RedisServer) -> None:
        with courier(server.url) as one:
            for _ in range(100):
                one.post(count())
            one.stop(5)
            assert total(server) == 100
            error, waited = refusal(lambda: one.ask(count()))
            assert "has left" in error.reason
            assert waited < 0.2

    @pytest.mark.parametrize("what", [signal.SIGSTOP, signal.SIGKILL])
    def test_ends_whatever_the_store_does(self, server: RedisServer, what: signal.Signals) -> None:
        with courier(server.url) as one:
            kill(server.pid, what)
            asking = [threading.Thread(target=lambda: refusal(lambda: one.ask(count()))) for _ in range(8)]
            for thread in asking:
                thread.start()
            one.post(count(), keeps=True)
            began = time.monotonic()
            one.stop(5)
            assert time.monotonic() - began < 5
            for thread in asking:
                thread.join(5)
            assert not any(thread.is_alive() for thread in asking)
            if what is signal.SIGSTOP:
                kill(server.pid, signal.SIGCONT)

    def test_before_it_was_started_is_no_fault(self, server: RedisServer) -> None:
        Courier(Store(StoreUrl.parse(server.url)), KEY, SCRIPTS).stop(1)


def test_replicas_are_waited_for_after_what_must_last(server: RedisServer) -> None:
    with RedisServer("--replicaof", "127.0.0.1", str(server.port)) as replica, server.client() as client:
        until(lambda: _follows(client))
        with courier(server.url) as one:
            assert one.replicas == 1
            assert one.ask(count(name="commit")) == 1
            with replica.client() as copy:
                assert copy.get(f"{KEY}n") == b"1"
            assert one.unreplicated == 0
            kill(replica.pid, signal.SIGSTOP)
            try:
                assert one.ask(count(name="commit")) == 2
                assert one.unreplicated == 1
            finally:
                kill(replica.pid, signal.SIGCONT)


def _follows(client: Redis) -> bool:
    client.set("before", 1)
    return client.wait(1, 100) == 1
