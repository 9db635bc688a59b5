"""Several redis-servers that stand in for each other: Sentinels with a pair, and a Cluster; on loopback."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final, Self

import redis

from support.mosquitto import HOST, free_port
from support.needs import needs_program
from support.redis_server import RedisServer
from support.waiting import until

#: Milliseconds without a word after which a server is taken for dead.
_DEAD_AFTER: Final = 1000
_SENTINELS: Final = 3
_MASTERS: Final = 3


class SentinelFleet:
    """A server, its replica, and three Sentinels that watch them: a context manager.

    Attributes:
        master: takes the writes at first.
        replica: takes them when the Sentinels find the other dead.
    """

    def __init__(self) -> None:
        self._program = needs_program("redis-sentinel")
        self._ports = [free_port() for _ in range(_SENTINELS)]

    def __enter__(self) -> Self:
        with ExitStack() as running:
            folder = Path(running.enter_context(TemporaryDirectory(prefix="inferbus-sentinels-")))
            self.master = running.enter_context(RedisServer())
            self.replica = running.enter_context(RedisServer("--replicaof", f"{HOST} {self.master.port}"))
            with self.replica.client() as client:
                until(lambda: facts(client)["master_link_status"] == "up")
            for port in self._ports:
                running.callback(_end, self._sentinel(folder, port))
            for port in self._ports:
                with redis.Redis(host=HOST, port=port) as client:
                    until(lambda client=client: _knows_all(client))  # type: ignore[misc]
            self._running = running.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._running.close()

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'{HOST}:{port}' for port in self._ports)}/pair"

    def _sentinel(self, folder: Path, port: int) -> subprocess.Popen[bytes]:
        config = folder / f"{port}.conf"
        config.write_text(
            f"port {port}\nbind {HOST}\ndir {folder}\nsentinel monitor pair {HOST} {self.master.port} 2\n"
            f"sentinel down-after-milliseconds pair {_DEAD_AFTER}\nsentinel failover-timeout pair 5000\n"
        )
        return subprocess.Popen([self._program, str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class ClusterFleet:
    """A Cluster of three servers with a replica each: a context manager.

    Attributes:
        nodes: all of them, those that take the writes at first before their replicas.
    """

    def __init__(self) -> None:
        self._program = needs_program("redis-cli")

    def __enter__(self) -> Self:
        with ExitStack() as running:
            self.nodes = [running.enter_context(_node()) for _ in range(2 * _MASTERS)]
            places = [f"{HOST}:{node.port}" for node in self.nodes]
            create = [self._program, "--cluster", "create", *places, "--cluster-replicas", "1", "--cluster-yes"]
            subprocess.run(create, check=True, capture_output=True, timeout=60)
            for node in self.nodes:
                with node.client() as client:
                    until(lambda client=client: _is_whole(client))  # type: ignore[misc]
            self._running = running.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._running.close()

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'{HOST}:{node.port}' for node in self.nodes[:_MASTERS])}"

    def node_of(self, key: str) -> RedisServer:
        """Who takes the writes of a key."""
        with self.nodes[0].client() as client:
            slot: Any = client.execute_command("CLUSTER KEYSLOT", key)
            rows: Any = client.execute_command("CLUSTER SLOTS")
        if isinstance(rows, dict):  # as redis-py reads it
            rows = [[low, high, row["primary"]] for (low, high), row in rows.items()]
        [port] = {int(row[2][1]) for row in rows if row[0] <= slot <= row[1]}
        return next(node for node in self.nodes if node.port == port)


def facts(client: redis.Redis) -> dict[str, Any]:
    """What a server says of its replication."""
    said: Any = client.info("replication")
    return dict(said)


def _node() -> RedisServer:
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(_DEAD_AFTER), "--appendonly", "yes")
    return RedisServer(*options, "--cluster-port", str(free_port()))


def _is_whole(client: redis.Redis) -> bool:
    said: Any = client.execute_command("CLUSTER INFO")
    text = said.decode() if isinstance(said, bytes) else str(said)
    replication = facts(client)
    linked = replication.get("master_link_status", "up") == "up"
    attended = replication["role"] == "slave" or replication["connected_slaves"] == 1
    return ("cluster_state:ok" in text or "'cluster_state': 'ok'" in text) and linked and attended


def _knows_all(sentinel: redis.Redis) -> bool:
    try:
        masters: Any = sentinel.sentinel_masters()
        [said] = masters.values()
    except (redis.ConnectionError, ValueError):
        return False
    return bool(said["num-other-sentinels"] == _SENTINELS - 1 and said["num-slaves"] == 1)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
