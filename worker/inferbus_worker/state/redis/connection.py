"""Connections to the store. redis-py's own patience is for nobody here: it is asked once, and half a second long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import SecretStr

from inferbus_client.errors import SettingsError
from inferbus_client.settings.sources import nearest
from inferbus_client.shown import shown_in_line
from inferbus_worker.settings.store_url import Address, StoreUrl
from inferbus_worker.state.errors import StoreAwayError, StoreError, StoreRefusedError
from inferbus_worker.state.redis.facts import Facts, check, facts_of
from inferbus_worker.state.redis.wire import Wire
from inferbus_worker.state.redis.words import at_first, in_words

if TYPE_CHECKING:
    from redis import Redis

Result = TypeVar("Result")

#: Seconds that the store has for a sign of life: to let somebody in, to take a command, to answer one.
TIMEOUT: Final = 0.5
#: Of the Sentinels' names, those that a sentence lists.
_NAMED: Final = 5


class Store:
    """Opens connections, each to the server that has a key.

    Used by several threads only as far as each opens connections of its own.
    """

    def __init__(self, url: StoreUrl) -> None:
        """Nothing is connected yet.

        Raises:
            SettingsError: redis-py is not installed, or a file that the URL names cannot be read.
        """
        try:
            import redis  # noqa: F401, PLC0415
        except ImportError:
            raise SettingsError("--state needs redis-py: pip install 'inferbus-worker[redis]'") from None
        self._url = url
        self._nodes = list(url.addresses)
        self._slots: list[tuple[int, int, Address]] = []
        self._tls()

    @property
    def url(self) -> StoreUrl:
        return self._url

    @property
    def is_cluster(self) -> bool:
        return self._url.kind == "cluster"

    def place_of(self, key: str) -> Address | None:
        """Where a key is; None for a socket.

        Raises:
            StoreError: nobody says so.
        """
        match self._url.kind:
            case "unix":
                return None
            case "single":
                return self._url.addresses[0]
            case "sentinel":
                return self._discovered()
        if not self._slots:
            self.refresh()
        if (known := self.known_place_of(key)) is not None:
            return known
        raise StoreAwayError(f"the Cluster at {self._url} has nobody for a part of its keys")

    def servers(self) -> list[Address | None]:
        """All that have keys and take writes; None for a socket.

        Raises:
            StoreError: nobody says so.
        """
        if not self.is_cluster:
            return [self.place_of("")]
        self.refresh()
        return list(dict.fromkeys(address for _, _, address in self._slots))

    def first_look(self, key: str) -> Facts:
        """What the server that has a key says of itself, once it has been found to be one to keep state in.

        Raises:
            StoreError: it is none, or cannot be reached; in one sentence.
        """
        wire = self.wire(self.place_of(key))
        wire.close()
        return wire.facts

    def known_place_of(self, key: str) -> Address | None:
        """Where a key of a Cluster was when somebody last asked; asks nobody."""
        from redis.crc import key_slot  # noqa: PLC0415

        slot = key_slot(key.encode())
        return next((address for first, last, address in self._slots if first <= slot <= last), None)

    def refresh(self) -> None:
        """Ask a Cluster anew which of its nodes has what. Nothing to do for others.

        Raises:
            StoreError: none of the nodes that are known says it.
        """
        if not self.is_cluster:
            return
        from redis.cluster import parse_cluster_slots  # noqa: PLC0415

        first: Exception | None = None
        for address in dict.fromkeys([*self._nodes, *self._url.addresses]):
            wire = self._wire(address)
            try:
                self._in_words(wire.connect, address, is_first=True)
                said = wire.ask("CLUSTER", "SLOTS")
            except StoreError as error:
                first = first or error
                continue
            finally:
                wire.close()
            table = parse_cluster_slots(said, current_host=address[0])
            self._slots = [(low, high, row["primary"]) for (low, high), row in table.items()]
            self._nodes = list(dict.fromkeys(primary for _, _, primary in self._slots))
            return
        raise first or StoreAwayError(f"the Cluster at {self._url} has no nodes")

    def client(self, address: Address | None, timeout: float = TIMEOUT) -> Redis:
        """A plain client of one server, which is asked once and no longer than that many seconds for each answer."""
        import redis  # noqa: PLC0415

        url, options = self._url, self._options(timeout)
        password = None if url.password is None else url.password.get_secret_value()
        options |= {"username": url.username, "password": password, "db": url.db}
        if address is None:
            return redis.Redis(unix_socket_path=url.path, **options)
        host, port = address
        return redis.Redis(host=host, port=port, **options, **self._tls())

    def client_of(self, key: str, timeout: float = TIMEOUT) -> Redis:
        """The same of the server that has a key.

        Raises:
            StoreError: nobody says which has it.
        """
        return self.client(self.place_of(key), timeout)

    def wire(self, address: Address | None, timeout: float = TIMEOUT) -> Wire:
        """A connection to a server, which has been found to be one to keep state in.

        Args:
            address: where it is; None for a socket.
            timeout: seconds that it has for each answer.

        Raises:
            StoreError: it cannot be had.
        """
        wire = self._wire(address, timeout)
        try:
            self._in_words(wire.connect, address, is_first=True)
            wire.facts = facts_of(wire.try_to)
            check(wire.facts, wire.place, self._url.kind)
        except BaseException:
            wire.close()
            raise
        return wire

    def _wire(self, address: Address | None, timeout: float = TIMEOUT) -> Wire:
        return Wire(self.client(address, timeout), self._place(address))

    def _in_words(self, ask: Callable[[], Result], address: Address | None, *, is_first: bool = False) -> Result:
        import redis  # noqa: PLC0415

        try:
            return ask()
        except (redis.RedisError, OSError) as error:
            said = in_words(error, self._place(address))
            if is_first and (guess := at_first(said, self._url)):
                raise StoreAwayError(f"{said.reason}; {guess}") from None
            raise said from None

    def _place(self, address: Address | None) -> str:
        if address is None:
            return f"the store at {shown_in_line(self._url.path)}"
        host, port = address
        return f"the store at [{host}]:{port}" if ":" in host else f"the store at {host}:{port}"

    def _options(self, timeout: float) -> dict[str, Any]:
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415

        return {
            "socket_timeout": timeout,
            "socket_connect_timeout": TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,  # whose answers need no handshake, and are alike on all servers
            "driver_info": None,
        }

    def _tls(self) -> dict[str, Any]:
        if not self._url.tls:
            return {}
        names = {"ssl_ca_certs": self._url.cafile, "ssl_certfile": self._url.cert, "ssl_keyfile": self._url.key}
        for file in filter(None, names.values()):
            _check_readable(file)
        return {"ssl": True, **{name: str(file) for name, file in names.items() if file is not None}}

    def _discovered(self) -> Address:
        """Which server the Sentinels say takes the writes."""
        import redis  # noqa: PLC0415
        from redis.sentinel import MasterNotFoundError, Sentinel  # noqa: PLC0415

        user, password = self._url.sentinel
        options = self._options(TIMEOUT) | {"username": user, "password": _bare(password)} | self._tls()
        sentinels = Sentinel(self._url.addresses, sentinel_kwargs=options)
        name = self._url.service
        try:
            host, port = sentinels.discover_master(name)
        except MasterNotFoundError:
            raise self._why_none(sentinels.sentinels) from None
        except (redis.RedisError, OSError) as error:
            raise in_words(error, f"the Sentinel of {self._url}") from None
        finally:
            sentinels.close()
        return host, port

    def _why_none(self, sentinels: Sequence[Redis]) -> StoreAwayError | StoreRefusedError:
        import redis  # noqa: PLC0415

        name = shown_in_line(self._url.service)
        failed: list[StoreError] = []
        for sentinel in sentinels:
            try:
                known = sorted(map(str, sentinel.sentinel_masters()))
            except (redis.RedisError, OSError) as error:
                failed.append(in_words(error, "the last of them"))
                continue
            if self._url.service in known:
                return StoreAwayError(f"the Sentinels see no server of {name} that takes writes")
            listed = ", ".join(map(shown_in_line, known[:_NAMED])) or "none at all"
            return StoreRefusedError(f"the Sentinels know no {name}{nearest(name, known)}; they watch {listed}")
        is_refused = failed and all(isinstance(error, StoreRefusedError) for error in failed)
        reason = f": {failed[-1].reason}" if failed else ""
        return (StoreRefusedError if is_refused else StoreAwayError)(f"no Sentinel of {self._url} answers{reason}")


def _bare(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _check_readable(file: Path) -> None:
    try:
        file.open("rb").close()
    except OSError as error:
        raise SettingsError(f"state: cannot read {file}: {error.strerror}") from None
