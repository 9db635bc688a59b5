"""`inferbus state`: what it shows of a group's store, and what it drops, and what it says where it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from inferbus_worker.state.keys import SessionKey
from inferbus_worker.state.redis.names import session_name
from support.inferbus import inferbus
from support.redis_cluster import RedisCluster
from support.redis_server import RedisServer
from support.terminal import in_terminal

_P = "inferbus:1:{hall}:"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _filled(server: RedisServer) -> None:
    """Two sessions, of which one has a history, a lane in which two wait, and a worker that holds one job."""
    with server.client() as client:
        client.flushall()
        client.set("inferbus:{hall}:schema", "1")
        for name in ("general/kitchen", "general/hall"):
            client.hset(f"{_P}session:{name}", mapping={"version": 1, "bytes": 1024, "tokens": 3})
            client.zadd(f"{_P}sessions", {name: 1})
        client.rpush("inferbus:1:history:{hall/general/kitchen}", b"{}", b"[]")
        client.hset(f"{_P}kept", mapping={"bytes": 2048})
        client.hset(f"{_P}lengths", mapping={"general/demo": 2})
        client.zadd(f"{_P}workers", {"i1": 10**15})
        client.hset(f"{_P}worker:i1", mapping={"worker": "gpu-1", "info": "{}"})
        client.hset(f"{_P}job:j1", mapping={"instance": "i1", "token": "t", "state": "running"})
        client.zadd(f"{_P}leases", {"j1": 10**15})
        client.sadd(f"{_P}held:i1", "j1")


def run(server: RedisServer, *arguments: str) -> tuple[int, str, str]:
    done = inferbus("state", "--state", server.url, "--group", "hall", *arguments)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_sizes_are_shown_and_are_json_for_programs(server: RedisServer) -> None:
    status, shown, _ = run(server)
    assert status == 0
    words = [line.split() for line in shown.splitlines()]
    assert words[0] == ["group", "hall", "at", server.url]
    assert [row for name in ("sessions", "leases", "gpu-1", "general/demo") for row in words if row[0] == name] == [
        ["sessions", "2"],
        ["leases", "1"],
        ["gpu-1", "1"],
        ["general/demo", "2"],
    ]
    status, shown, _ = run(server, "--json")
    said = json.loads(shown)
    assert (said["sessions"], said["leases"], said["queued"], said["held"]) == (
        *(2, 1),
        {"general/demo": 2},
        {"gpu-1": 1},
    )


@pytest.mark.parametrize("columns", [20, 40, 120])
def test_a_narrow_terminal_has_no_line_that_is_folded_by_itself(server: RedisServer, columns: int) -> None:
    lines = in_terminal("state", "--state", server.url, "--group", "hall", columns=columns).text.splitlines()
    assert any("sessions" in line for line in lines)
    assert max(len(line) for line in lines if "://" not in line) <= columns


def test_nothing_is_dropped_without_a_yes(server: RedisServer) -> None:
    for what, name in (("session", "general/kitchen"), ("lane", "general/demo"), ("leases", "gpu-1")):
        status, _, said = run(server, "drop", what, name)
        assert status == 2
        assert "say --yes to do it" in said
    with server.client() as client:
        assert client.exists(f"{_P}session:general/kitchen", f"{_P}held:i1") == 2


def test_a_session_goes_with_its_history(server: RedisServer) -> None:
    assert run(server, "drop", "session", "general/kitchen", "--yes")[:2] == (
        0,
        "session general/kitchen: it is forgotten\n",
    )
    with server.client() as client:
        assert client.exists(f"{_P}session:general/kitchen", "inferbus:1:history:{hall/general/kitchen}") == 0
        assert client.exists(f"{_P}session:general/hall") == 1
    status, _, said = run(server, "drop", "session", "general/kitchen", "--yes")
    assert (status, said) == (1, "inferbus: there is no session general/kitchen in group hall\n")


def test_a_worker_loses_its_leases(server: RedisServer) -> None:
    assert run(server, "drop", "leases", "gpu-1", "--yes")[:2] == (0, "leases of gpu-1: 1 for others now\n")
    with server.client() as client:
        assert client.hget(f"{_P}job:j1", "token") == b""
    nothing = "inferbus: there is no lease of worker gpu-2 in group hall\n"
    assert run(server, "drop", "leases", "gpu-2", "--yes") == (1, "", nothing)


def test_a_lane_in_which_nothing_waits_is_no_lane_that_was_emptied(server: RedisServer) -> None:
    nothing = "inferbus: there is nothing that waits in lane general/phi in group hall\n"
    assert run(server, "drop", "lane", "general/phi", "--yes") == (1, "", nothing)


def test_a_session_has_a_project(server: RedisServer) -> None:
    status, _, said = run(server, "drop", "session", "kitchen", "--yes")
    assert (status, "PROJECT/SESSION" in said) == (2, True)


@pytest.mark.parametrize("name", ["general", "/demo", "general/"])
def test_a_lane_has_two_parts(server: RedisServer, name: str) -> None:
    status, _, said = run(server, "drop", "lane", name, "--yes")
    assert (status, "PROJECT/MODEL" in said) == (2, True)


@pytest.mark.parametrize("verb", [("drop",), ("drop", "session"), ("drop", "lane"), ("drop", "leases")])
def test_help_needs_no_store(verb: tuple[str, ...]) -> None:
    done = inferbus("state", *verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: inferbus state {' '.join(verb)}" in done.stdout


def test_without_a_store_it_says_how_to_name_one() -> None:
    named = "inferbus: --state (or --state-file, or INFERBUS_STATE) has to name the store\n"
    for verb in ((), ("drop", "session", "general/kitchen", "--yes")):
        done = inferbus("state", *verb)
        assert (done.returncode, done.stderr) == (2, named)
    done = inferbus("state", "--state", "redis://127.0.0.1:1")
    assert done.returncode == 3
    assert done.stderr.strip().endswith("the store at 127.0.0.1:1 cannot be reached: Connection refused")


def test_of_a_group_that_is_not_there_it_says_which_are(server: RedisServer) -> None:
    with server.client() as client:
        client.set("inferbus:{kitchen}:schema", "1")
        client.mset({f"another:{number}": 1 for number in range(3000)})
    said = f"inferbus: there is no group hal in {server.url}; is hall meant?; it has hall, kitchen\n"
    for verb in ((), ("--json",), ("drop", "session", "general/kitchen", "--yes"), ("drop", "leases", "w", "--yes")):
        done = inferbus("state", "--state", server.url, "--group", "hal", *verb)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_a_group_that_has_nothing_yet_is_there_all_the_same(server: RedisServer) -> None:
    with server.client() as client:
        client.flushall()
        assert run(server)[2] == f"inferbus: there is no group hall in {server.url}; it has none\n"
        client.set("inferbus:{hall}:schema", "1")
    assert run(server)[0] == 0


def test_groups_are_looked_for_at_all_nodes_of_a_cluster() -> None:
    with RedisCluster() as cluster:
        for name in (names := [f"group-{number}" for number in range(8)]):
            with cluster.node_of(key := f"inferbus:{{{name}}}:schema").client() as client:
                client.set(key, "1")
        done = inferbus("state", "--state", cluster.url, "--group", "another")
        assert done.stderr.endswith(f"; it has {', '.join(names)}\n")


def test_sessions_have_names_of_their_own() -> None:
    keys = [
        SessionKey("general", "kitchen"),
        SessionKey("general", "kitchen", "ann"),
        SessionKey("general", "kitchen", "gate", "a/b"),
        SessionKey("general", "kitchen", "gate", "a"),
    ]
    assert [session_name(key) for key in keys] == [
        "general/kitchen",
        "general/users/ann/kitchen",
        "general/users/gate/kitchen/a%2Fb",
        "general/users/gate/kitchen/a",
    ]
