"""The Redis of deploy/, started as deploy/docker/fleet.yaml starts it, on a real redis-server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import redis
import yaml

from support.mosquitto import HOST, free_port
from support.needs import needs_program
from support.scripts import ROOT
from support.waiting import until

DEPLOY: Final = ROOT / "deploy"
PASSWORD: Final = "hunter2-of-a-test"  # noqa: S105 - of a server of this test's own


def service() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "docker/fleet.yaml").read_text())["services"]["redis"]
    return found


def here(command: str, folder: Path, port: int) -> str:
    """A command of the container's, in a folder of ours and on another port."""
    return (
        command.replace("$$", "$")
        .replace("/run/secrets", str(folder))
        .replace("/etc/redis", str(DEPLOY / "redis"))
        .replace("redis.conf", f"redis.conf --dir {folder} --port {port}")
        .replace("redis-cli", f"redis-cli -p {port}")
    )


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    needs_program("redis-server")
    (tmp_path / "redis-password").write_text(f"{PASSWORD}\n")
    port = free_port()
    *shell, script = service()["command"]
    with subprocess.Popen([*shell, here(script, tmp_path, port)], stdout=subprocess.DEVNULL) as server:
        try:
            until(lambda: is_healthy(tmp_path, port))
            yield port
        finally:
            server.terminate()
            assert server.wait(20) == 0, "SIGTERM does not reach it"


def is_healthy(folder: Path, port: int) -> bool:
    kind, check = service()["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    return subprocess.run(["sh", "-c", here(check, folder, port)], check=False, timeout=20).returncode == 0


def test_it_takes_the_password_from_its_file_and_nobody_without(port: int) -> None:
    with redis.Redis(host=HOST, port=port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    with redis.Redis(host=HOST, port=port, password=PASSWORD) as worker:
        assert worker.ping()


def test_it_keeps_everything_and_throws_away_nothing(port: int) -> None:
    with redis.Redis(host=HOST, port=port, password=PASSWORD, decode_responses=True) as worker:
        in_force = worker.config_get("appendonly", "maxmemory-policy", "save", "maxmemory")
        assert in_force == {
            "appendonly": "yes",
            "maxmemory-policy": "noeviction",
            "save": "",
            "maxmemory": str(512 * 1024 * 1024),
        }


def test_its_health_is_asked_with_the_password(port: int, tmp_path: Path) -> None:
    (tmp_path / "redis-password").write_text("another\n")
    assert not is_healthy(tmp_path, port)
