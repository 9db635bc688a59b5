"""Redis-servers that belong together: a Cluster of three masters; a server with its replica, and Sentinels."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from redis.crc import key_slot

from support.mosquitto import HOST, free_port
from support.redis_server import RedisServer
from support.waiting import until

_MASTERS: Final = 3
_SLOTS: Final = 16_384
_NODE_TIMEOUT: Final = 1000  # ms until a node that is silent counts as gone
#: A replica need not wait for others to come.
_AT_ONCE: Final = ("--repl-diskless-sync-delay", "0")
#: What the Sentinels of the tests call their servers.
SERVICE: Final = "main"


class RedisCluster:
    """Three masters, which share the slots evenly. Each is a server of its own, to be stalled or killed.

    Args:
        options: more options of each server.
        replicated: whether each has a replica, which takes its place when it is gone.

    Attributes:
        nodes: the masters.
    """

    def __init__(self, *options: str, replicated: bool = False) -> None:
        self.nodes = [_Node(*options) for _ in range(_MASTERS)]
        self._replicas = [_Node(*options) for _ in range(_MASTERS if replicated else 0)]

    def __enter__(self) -> Self:
        with ExitStack() as running:
            for node in (*self.nodes, *self._replicas):
                running.enter_context(node)
            self._share_out()
            self._running = running.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._running.close()

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'{HOST}:{node.port}' for node in self.nodes)}"

    def node_of(self, key: str) -> RedisServer:
        """The server that had the key at first."""
        return self.nodes[key_slot(key.encode()) * len(self.nodes) // _SLOTS]

    def key_on(self, node: RedisServer) -> str:
        """A key that is on that server."""
        return next(key for key in (f"key{number}" for number in range(1000)) if self.node_of(key) is node)

    def move(self, key: str, to: RedisServer, *, slowly: float = 0) -> None:
        """Give the key's slot, and what is in it, to another master, as `redis-cli --cluster reshard` does.

        Args:
            key: any of the slot, which is where it was at first.
            to: who has it from now on.
            slowly: seconds for which its keys go a few at a time, unless all have gone before.
        """
        slot, source = key_slot(key.encode()), self.node_of(key)
        name = _cluster(to, "MYID")
        _cluster(to, "SETSLOT", slot, "IMPORTING", _cluster(source, "MYID"))
        _cluster(source, "SETSLOT", slot, "MIGRATING", name)
        end = time.monotonic() + slowly
        with source.client() as client:
            while keys := _cluster(source, "GETKEYSINSLOT", slot, 3 if time.monotonic() < end else 100):
                client.migrate(HOST, to.port, keys, 0, 5000, replace=True)
                time.sleep(min(0.1, max(0.0, end - time.monotonic())))
        # Who has it now is told first: else nobody would for a moment.
        for node in (to, source, *(each for each in self.nodes if each not in {to, source})):
            _cluster(node, "SETSLOT", slot, "NODE", name)

    def _share_out(self) -> None:
        nodes = (*self.nodes, *self._replicas)
        for number, node in enumerate(nodes):
            _cluster(node, "SET-CONFIG-EPOCH", number + 1)
        for number, node in enumerate(self.nodes):
            # The slot's first whole number that `node_of` gives to this node, and the next one's.
            low, end = (-(-one * _SLOTS // len(self.nodes)) for one in (number, number + 1))
            _cluster(node, "ADDSLOTSRANGE", low, end - 1)
        until(lambda: sum(map(self._has_met_all, nodes)) == len(nodes))  # `all` would ask no further than the first
        for master, replica in zip(self.nodes, self._replicas, strict=False):
            _cluster(replica, "REPLICATE", _cluster(master, "MYID"))
        until(lambda: all(map(self._is_attended, nodes)))

    def _has_met_all(self, node: RedisServer) -> bool:
        first, known = self.nodes[0], _cluster(node, "NODES").decode().splitlines()
        if not any(f":{first.port}@" in other for other in known):
            _cluster(node, "MEET", HOST, first.port, first.bus_port)  # again where it was not answered in time
        met = [other for other in known if "handshake" not in other]
        return len(met) == len(self.nodes) + len(self._replicas) and "cluster_state:ok" in str(_cluster(node, "INFO"))

    def _is_attended(self, node: RedisServer) -> bool:
        """Whether a master has its replica, where it is to have one, or a replica all that its master has."""
        said = _replication(node)
        return bool(said["connected_slaves"]) == bool(self._replicas) or said.get("master_link_status") == "up"


class _Node(RedisServer):
    def __init__(self, *options: str) -> None:
        self.bus_port = free_port()
        options = ("--cluster-port", str(self.bus_port), "--cluster-node-timeout", str(_NODE_TIMEOUT), *options)
        super().__init__("--cluster-enabled", "yes", *_AT_ONCE, *options)


def _cluster(node: RedisServer, *words: Any) -> Any:
    with node.client() as client:
        return client.execute_command("CLUSTER", *words)


def _replication(node: RedisServer) -> Any:
    with node.client() as client:
        return client.info("replication")


class RedisSentinels:
    """A server, its replica, and three Sentinels that make the replica the new one where the first does not answer."""

    def __init__(self) -> None:
        self._sentinel_ports = [free_port() for _ in range(3)]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.first = stack.enter_context(RedisServer(*_AT_ONCE))
            self.replica = stack.enter_context(RedisServer("--replicaof", HOST, str(self.first.port)))
            until(lambda: "'online'" in str(_replication(self.first).get("slave0")))
            self.sentinels = [stack.enter_context(_Sentinel(port, self.first.port)) for port in self._sentinel_ports]
            until(self._know_each_other)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'{HOST}:{port}' for port in self._sentinel_ports)}/{SERVICE}"

    def _know_each_other(self) -> bool:
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                said: Any = client.sentinel_masters()
            state = said[SERVICE]
            if state["num-other-sentinels"] < len(self.sentinels) - 1 or not state["num-slaves"]:
                return False
        return True


class _Sentinel(RedisServer):
    def __init__(self, port: int, watched: int) -> None:
        super().__init__(port=port)
        self._watched = watched

    def _arguments(self, folder: Path) -> list[str]:
        file = folder / "sentinel.conf"
        if not file.exists():  # it writes into it what it finds out
            rows = [f"port {self.port}", f"bind {HOST}", f"sentinel monitor {SERVICE} {HOST} {self._watched} 2"]
            rows += [f"sentinel down-after-milliseconds {SERVICE} 1000", f"sentinel failover-timeout {SERVICE} 3000"]
            file.write_text("\n".join([*rows, ""]))
        return [str(file), "--sentinel"]
