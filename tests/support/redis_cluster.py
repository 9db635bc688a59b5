"""Redis-servers that belong together: a Cluster of three masters; a server with its replica, and Sentinels."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from redis.crc import key_slot

from support.mosquitto import HOST, free_port
from support.redis_server import RedisServer
from support.waiting import until

_SLOTS: Final = 16_384
_NODE_TIMEOUT: Final = 1000  # ms until a node that is silent counts as gone
_PATIENCE: Final = 60.0
#: What the Sentinels of the tests call their servers.
SERVICE: Final = "main"


class RedisCluster:
    """Three masters, which share the slots evenly. Each is a server of its own, to be stalled or killed."""

    def __init__(self, *options: str) -> None:
        self._ports = [(free_port(), free_port()) for _ in range(3)]
        self._options = options
        self.nodes: list[RedisServer] = []

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        with self._stack:
            for port, bus_port in self._ports:
                options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(_NODE_TIMEOUT)]
                options += ["--cluster-port", str(bus_port), *self._options]
                self.nodes.append(self._stack.enter_context(RedisServer(*options, port=port)))
            self._share_out()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'{HOST}:{node.port}' for node in self.nodes)}"

    def node_of(self, key: str) -> RedisServer:
        """The server that had the key at first."""
        return self.nodes[key_slot(key.encode()) * len(self.nodes) // _SLOTS]

    def key_on(self, node: RedisServer) -> str:
        """A key that is on that server."""
        return next(key for key in (f"key{number}" for number in range(1000)) if self.node_of(key) is node)

    def move(self, key: str, to: RedisServer) -> None:
        """Give the key's slot to another. There is nothing in it yet but what expires."""
        slot = key_slot(key.encode())
        for node in self.nodes:
            with node.client() as client:
                until(lambda: client.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot) == 0, _PATIENCE)
        with to.client() as client:
            name = client.execute_command("CLUSTER", "MYID")
        for node in self.nodes:
            with node.client() as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", name)

    def _share_out(self) -> None:
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                # The slot's first whole number that `node_of` gives to this node, and the next one's.
                first, end = (-(-one * _SLOTS // len(self.nodes)) for one in (number, number + 1))
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                client.execute_command("CLUSTER", "MEET", HOST, *self._ports[0])
        for node in self.nodes:
            until(lambda: self._is_whole(node), _PATIENCE)  # noqa: B023

    def _is_whole(self, node: RedisServer) -> bool:
        with node.client() as client:
            said = client.execute_command("CLUSTER", "INFO")
        return "cluster_state:ok" in str(said) and "cluster_known_nodes:3" in str(said)


class RedisSentinels:
    """A server, its replica, and three Sentinels that make the replica the new one where the first does not answer."""

    def __init__(self, *options: str) -> None:
        self._options = (*options, "--repl-diskless-sync-delay", "0")
        self._sentinel_ports = [free_port() for _ in range(3)]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.first = stack.enter_context(RedisServer(*self._options))
            self.replica = stack.enter_context(RedisServer(*self._options, "--replicaof", HOST, str(self.first.port)))
            until(self._is_followed, _PATIENCE)
            self.sentinels = [stack.enter_context(_Sentinel(port, self.first.port)) for port in self._sentinel_ports]
            until(self._know_each_other, _PATIENCE)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'{HOST}:{port}' for port in self._sentinel_ports)}/{SERVICE}"

    def _is_followed(self) -> bool:
        with self.first.client() as client:
            said: Any = client.info("replication")
        return "'online'" in str(said.get("slave0"))

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
