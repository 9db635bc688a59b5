"""What `inferbus doctor` says of a store, and what becomes of what is written there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inferbus_client.fleet.checks import CheckResult
from inferbus_worker.settings.worker import Settings
from inferbus_worker.state.redis.connection import Store
from inferbus_worker.state.redis.diagnosis import check_store
from inferbus_worker.state.redis.facts import Facts
from support.inferbus import inferbus
from support.nowhere import nobody
from support.redis_server import RedisServer

_HEALTHY = Facts("Redis 7.0.15", (7, 0), "standalone", False, 0, True, "always", 0, "noeviction", 0.0)


def found(url: str) -> dict[str, CheckResult]:
    return {result.name: result for result in check_store(Settings.load({"state": url}))}


def test_a_store_that_forgets_nothing_is_well() -> None:
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        results = found(server.url)
    assert {name: result.verdict for name, result in results.items()} == {
        "store": "ok",
        "durability": "ok",
        "replicas": "info",
        "memory": "ok",
        "clock": "ok",
    }
    assert f"answers at {server.url}" in results["store"].text


def test_what_a_store_would_forget_is_said() -> None:
    with RedisServer("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru") as server:
        results = found(server.url)
    assert results["durability"].verdict == "warning"
    assert results["durability"].text.startswith("appendonly no: ")
    assert results["memory"].verdict == "failed"
    assert results["memory"].text.startswith("maxmemory 64 MiB, maxmemory-policy allkeys-lru: ")


@pytest.mark.parametrize(
    ("facts", "name", "verdict", "said"),
    [
        (_HEALTHY, "memory", "ok", "maxmemory not bounded"),
        ({"policy": "volatile-lru"}, "memory", "warning", "throws away what workers rely on"),
        ({"policy": None}, "memory", "info", "may not ask"),
        ({"appendfsync": "everysec"}, "durability", "warning", "last second"),
        ({"appendfsync": "no"}, "durability", "warning", "what its system had not written"),
        ({"appendfsync": None}, "durability", "info", "may not ask"),
        ({"appendonly": None}, "durability", "info", "may not ask"),
        ({"replicas": 2}, "replicas", "ok", "2: what was accepted"),
        ({"skew": 61.0}, "clock", "warning", "61.0 s ahead of this host's"),
        ({"skew": -2.0}, "clock", "warning", "2.0 s behind this host's"),
        ({"skew": None}, "clock", "info", "may not ask"),
    ],
)
def test_each_kind_of_store_has_its_sentence(
    facts: dict[str, object], name: str, verdict: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {field: getattr(_HEALTHY, field) for field in Facts.__slots__}
    mended = Facts(**(fields | (facts if isinstance(facts, dict) else {})))
    monkeypatch.setattr(Store, "first_look", lambda *_: mended)
    result = found("redis://h")[name]
    assert (result.verdict, said in result.text) == (verdict, True), result


def test_one_that_is_not_there_is_said_with_what_to_look_at(tmp_path: Path) -> None:
    with nobody() as url:
        result = found(url.replace("mqtt", "redis"))["store"]
    assert (result.verdict, result.remedy) == ("failed", "Is it running, and may this host reach it?")
    (missing,) = check_store(Settings.load({"state_file": str(tmp_path / "none")}))
    assert (missing.verdict, "cannot be read" in missing.text) == ("failed", True)


def test_the_verb_looks_at_the_store_that_it_is_given() -> None:
    with RedisServer() as server, nobody() as broker:
        done = inferbus(
            "doctor",
            "--json",
            "--connect-timeout",
            "1s",
            "--broker",
            broker,
            "--state",
            f"redis://:geheim@127.0.0.1:{server.port}",
        )
    rows = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert rows["store"]["verdict"] == "failed"
    assert "asks for no password" in rows["store"]["text"]
    assert "geheim" not in done.stdout + done.stderr


def test_the_verb_reads_the_password_from_a_file(tmp_path: Path) -> None:
    file, word = tmp_path / "password", "geheim"
    file.write_text(f"{word}\n")
    with RedisServer("--requirepass", word, password=word) as server, nobody() as broker:
        store = ("--state", f"redis://127.0.0.1:{server.port}", "--state-file", str(file))
        done = inferbus("doctor", "--json", "--connect-timeout", "1s", "--broker", broker, *store)
    rows = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert rows["store"]["verdict"] == "ok"
    assert word not in done.stdout + done.stderr
