"""What is said, in one sentence, of a store that cannot be had; and what it says of itself where it can."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inferbus_client.errors import SettingsError
from inferbus_worker.settings.store_url import StoreUrl
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.errors import StoreAwayError, StoreError, StoreRefusedError
from inferbus_worker.state.redis.connection import Store
from inferbus_worker.state.redis.facts import Facts, check
from inferbus_worker.state.redis.places import store_of
from support.couriers import KEY, count, courier
from support.mosquitto import Mosquitto
from support.nowhere import black_hole, nobody
from support.pki import Authority
from support.redis_cluster import RedisCluster, RedisSentinels
from support.redis_server import RedisServer

_PASSWORD = "geheim"  # noqa: S105 - no one's


def looked_at(url: str) -> Facts:
    return Store(StoreUrl.parse(url)).first_look(KEY)


def complaint(url: str, kind: type[StoreError] = StoreRefusedError) -> str:
    with pytest.raises(kind) as caught:
        looked_at(url)
    assert _PASSWORD not in caught.value.reason
    assert "\n" not in caught.value.reason
    return caught.value.reason


@contextmanager
def website() -> Iterator[int]:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.RequestHandlerClass.log_message = lambda *_: None  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestFacts:
    def test_say_what_becomes_of_what_is_written(self) -> None:
        with RedisServer("--appendonly", "yes", "--appendfsync", "always", "--maxmemory", "1gb") as server:
            facts = looked_at(server.url)
        assert facts.server.startswith(("Redis ", "Valkey "))
        assert facts.version is not None
        assert facts.version >= (6, 2)
        assert (facts.appendonly, facts.appendfsync, facts.maxmemory) == (True, "always", 2**30)
        assert (facts.policy, facts.replicas, facts.is_replica, facts.mode) == ("noeviction", 0, False, "standalone")
        assert facts.skew is not None
        assert abs(facts.skew) < 2

    def test_a_user_who_may_not_ask_is_served_all_the_same(self) -> None:
        rule = f"user ann on >{_PASSWORD} ~* &* +@all -@dangerous"
        with RedisServer(*rule.replace("user", "--user", 1).split()) as server:
            url = f"redis://ann:{_PASSWORD}@127.0.0.1:{server.port}"
            facts = looked_at(url)
            assert (facts.version, facts.appendfsync, facts.policy) == (None, None, None)
            with courier(url) as one:
                assert one.ask(count()) == 1

    @pytest.mark.parametrize(
        ("version", "is_refused"), [((6, 0), True), ((5, 9), True), ((6, 2), False), ((7, 2), False), (None, False)]
    )
    def test_an_old_one_is_refused(self, version: tuple[int, int] | None, is_refused: bool) -> None:  # noqa: FBT001
        facts = Facts("Redis 6.0.16", version, "standalone", False, 0, None, None, None, None, None)
        if not is_refused:
            check(facts, "the store at h:1", "single")
            return
        with pytest.raises(StoreRefusedError) as caught:
            check(facts, "the store at h:1", "single")
        assert caught.value.reason == "the store at h:1 is Redis 6.0.16; it must be 6.2 or newer, or any Valkey"


class TestPasswords:
    def test_are_asked_for_and_wrong_and_right(self) -> None:
        with RedisServer("--requirepass", _PASSWORD, password=_PASSWORD) as server:
            at = f"127.0.0.1:{server.port}"
            assert complaint(f"redis://{at}") == f"the store at {at} asks for a password, and none was given"
            assert complaint(f"redis://:wrong@{at}") == f"the store at {at} refuses this user or password"
            assert complaint(f"redis://bob:{_PASSWORD}@{at}") == f"the store at {at} refuses this user or password"
            assert looked_at(f"redis://:{_PASSWORD}@{at}").mode == "standalone"

    def test_where_none_is_asked_for(self) -> None:
        with RedisServer() as server:
            at = f"127.0.0.1:{server.port}"
            assert complaint(f"redis://:x@{at}") == f"the store at {at} asks for no password, and one was given"

    def test_may_stand_in_a_file_or_a_variable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "secret"
        file.write_text(f"{_PASSWORD}\n")
        expected = StoreUrl.parse(f"redis://ann:{_PASSWORD}@h")
        assert store_of(Settings.load({"state": "redis://ann@h", "state_file": str(file)})) == expected
        file.write_text(f"redis://ann:{_PASSWORD}@h")
        assert store_of(Settings.load({"state_file": str(file)})) == expected
        monkeypatch.setenv("INFERBUS_STATE_PASSWORD", _PASSWORD)
        assert store_of(Settings.load({"state": "redis://ann@h"})) == expected

    @pytest.mark.parametrize(
        ("text", "state", "said"),
        [
            (None, "redis://h", "cannot be read: No such file or directory"),
            ("", "redis://h", "must hold one line"),
            (f"{_PASSWORD}\nmore", "redis://h", "must hold one line"),
            (_PASSWORD, None, "holds no URL, and state says none"),
            ("redis://h", "redis://h", "holds a URL, and state says one too"),
            (f"redis://:{_PASSWORD}@h:port", None, "its URL has no valid host and port"),
        ],
    )
    def test_what_is_wrong_with_their_file_is_said(
        self, tmp_path: Path, text: str | None, state: str | None, said: str
    ) -> None:
        file = tmp_path / "secret"
        if text is not None:
            file.write_text(text)
        with pytest.raises(SettingsError) as caught:
            store_of(Settings.load({"state": state, "state_file": str(file)}))
        assert said in str(caught.value)
        assert _PASSWORD not in str(caught.value)


class TestElsewhere:
    def test_nobody_answers(self) -> None:
        with nobody() as url:
            assert complaint(url.replace("mqtt", "redis"), StoreAwayError).endswith(
                "cannot be reached: Connection refused"
            )
        with black_hole() as url:
            assert complaint(url.replace("mqtt", "redis"), StoreAwayError).endswith("does not answer in time")
        assert "cannot be reached" in complaint("redis://no-such-host.invalid", StoreAwayError)
        assert complaint("unix:///no/such.sock", StoreAwayError) == (
            "the store at /no/such.sock cannot be reached: No such file or directory"
        )

    def test_what_is_there_is_no_redis(self) -> None:
        with website() as port:
            assert "is no Redis" in complaint(f"redis://127.0.0.1:{port}")
        with Mosquitto() as broker:
            assert "be no Redis" in complaint(f"redis://127.0.0.1:{broker.port}", StoreAwayError)

    def test_a_database_that_it_has_not(self) -> None:
        with RedisServer() as server:
            assert "has no database of that number" in complaint(f"redis://127.0.0.1:{server.port}/99")

    def test_a_socket(self, tmp_path: Path) -> None:
        with RedisServer("--unixsocket", str(tmp_path / "s")), courier(f"unix://{tmp_path}/s?db=1") as one:
            assert one.ask(count()) == 1

    def test_a_replica_takes_no_writes(self) -> None:
        with RedisServer() as server, RedisServer("--replicaof", "127.0.0.1", str(server.port)) as replica:
            assert "is a replica, and takes no writes" in complaint(replica.url)

    def test_tls(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        own, client = authority.server(), authority.client()
        options = ["--tls-cert-file", str(own.cert), "--tls-key-file", str(own.key)]
        options += ["--tls-ca-cert-file", str(authority.cert), "--tls-auth-clients", "optional"]
        with RedisServer() as probe:
            port = probe.port + 1
        with RedisServer("--tls-port", str(port), *options) as server:
            trusting = f"cafile={authority.cert}"
            assert "has a certificate that is not trusted" in complaint(f"rediss://127.0.0.1:{port}")
            assert "it may want TLS (rediss://)" in complaint(f"redis://127.0.0.1:{port}", StoreAwayError)
            assert "it may speak no TLS" in complaint(f"rediss://127.0.0.1:{server.port}?{trusting}", StoreAwayError)
            assert looked_at(f"rediss://127.0.0.1:{port}?{trusting}").mode == "standalone"
            own_url = f"rediss://localhost:{port}?{trusting}&cert={client.cert}&key={client.key}"
            with courier(own_url) as one:
                assert one.ask(count()) == 1
            with pytest.raises(SettingsError, match="cannot read /no/ca"):
                looked_at(f"rediss://127.0.0.1:{port}?cafile=/no/ca")


class TestKinds:
    def test_a_cluster_is_called_so(self) -> None:
        with RedisCluster() as cluster:
            one = cluster.nodes[0].port
            assert "is a node of a Cluster: say redis+cluster://" in complaint(f"redis://127.0.0.1:{one}")
            assert looked_at(cluster.url).mode == "cluster"
        with RedisServer() as server:
            assert "is no Cluster; say redis://" in complaint(f"redis+cluster://127.0.0.1:{server.port}")

    def test_sentinels_are_called_so(self) -> None:
        with RedisSentinels() as servers:
            sentinel = servers.sentinels[0].port
            assert "is a Sentinel, which keeps nothing" in complaint(f"redis://127.0.0.1:{sentinel}")
            at = f"redis+sentinel://127.0.0.1:{sentinel}"
            assert complaint(f"{at}/mian") == "the Sentinels know no mian; is main meant?; they watch main"
            assert looked_at(f"{at}/main").replicas == 1
            assert "no Sentinel of" in complaint("redis+sentinel://127.0.0.1:1/main", StoreAwayError)
            assert "is no Sentinel" in complaint(f"redis+sentinel://127.0.0.1:{servers.first.port}/main")
            for each in servers.sentinels:
                with each.client() as client:
                    client.execute_command("ACL", "SETUSER", "default", "resetpass", f">{_PASSWORD}")
            assert complaint(f"{at}/main").endswith("the last of them asks for a password, and none was given")
