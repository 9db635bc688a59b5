"""Who may come in at the gateway, and how much of it each may have at once and in a time."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from inferbus_client.errors import SettingsError
from inferbus_client.gateway.errors import KeyLimitError
from inferbus_client.gateway.keys_file import Content, KeySettings, KeysFile, hash_of, is_token
from inferbus_client.settings.rates import RateLimit
from inferbus_client.shown import shown_in_line
from inferbus_client.units import counted

log = logging.getLogger("inferbus.keys")

#: Seconds between two looks at the file.
_LOOK_EVERY: Final = 1.0
#: Nanoseconds in which a file may be written twice with the same time on it.
_UNSETTLED: Final = 2_000_000_000
#: Bytes of a file, some fifty keys, which is read so quickly that whoever asks can wait for it.
_SHORT: Final = 8192
#: Seconds after which to try again where as many requests as may be are under way: nobody knows how long they take.
_SOON: Final = 1.0


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that holds.

    Attributes:
        name: whose it is; on the bus, the `clientId`.
        projects: those that it may use; None: all.
        rate_limit: how many requests it may make in a time; None: any.
        max_concurrent: how many it may have under way; None: any.
        is_operator: whether it may see how the bus and its workers are.
    """

    name: str
    projects: frozenset[str] | None = None
    rate_limit: RateLimit | None = None
    max_concurrent: int | None = None
    is_operator: bool = False

    def may_use(self, project: str) -> bool:
        return self.projects is None or project in self.projects


@dataclass(slots=True)
class _Counts:
    """What a key has had, whatever the file says of it now.

    Attributes:
        times: when its last requests came, as many of them as its limit counts.
        running: those under way.
    """

    times: deque[float] = field(default_factory=deque)
    running: int = 0

    def seconds_until_room(self, rate: RateLimit, now: float) -> float:
        """Seconds until one more is let through; 0: now."""
        while self.times and (len(self.times) > rate.limit or now - self.times[0] >= rate.window):
            self.times.popleft()
        return self.times[0] + rate.window - now if len(self.times) >= rate.limit else 0.0


class Admitted:
    """One request of a key's, until it is released: by any thread, any number of times. A context manager."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release
        self._lock = threading.Lock()

    def release(self) -> None:
        with self._lock:
            release, self._release = self._release, None
        if release is not None:
            release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


class _Stamp(NamedTuple):
    """What tells one state of a file from another without reading it."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> _Stamp | None:
        try:
            there = path.stat()
        except (OSError, ValueError):
            return None
        return cls(there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns)

    @property
    def is_settled(self) -> bool:
        """Whether what is written from now on is sure to have another stamp."""
        return abs(time.time_ns() - self.changed) > _UNSETTLED


class ApiKeys:
    """The keys of a file, as it is now: it is read again when it has changed. Any thread may use it.

    A change holds within a second, at the next `find`, whose thread reads the file; some 0.7 ms a key later where it is
    a long one, which a thread of its own reads. One that cannot be used any more, or is gone, changes nothing, and is
    complained of in the log. Who came in while a key held stays until he is done.

    Args:
        path: the file.
        clock: a monotonic one.

    Raises:
        SettingsError: the file cannot be used.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._counts: dict[str, _Counts] = {}
        self._stamp = _Stamp.of(path)
        self._is_settled = self._stamp is not None and self._stamp.is_settled
        self._looked_at = clock()
        read = Content.read(path)
        self._content: Content | str = read
        self._keys: Mapping[str, ApiKey] = {}
        self._take(read)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, token: str) -> ApiKey | None:
        """The key that somebody has shown; None where it is none of ours.

        How long it takes tells nothing: what is looked up is the hash, of which nobody can choose the beginning, and
        who knew all of it would not know the key.
        """
        self.look()
        return self._keys.get(hash_of(token)) if is_token(token) else None

    def admit(self, key: ApiKey) -> Admitted:
        """Count a request, until it is released; one that is refused is not counted.

        Raises:
            KeyLimitError: the key has had as much as it may.
        """
        now = self._clock()
        with self._lock:
            counts = self._counts.setdefault(key.name, _Counts())
            if key.max_concurrent is not None and counts.running >= key.max_concurrent:
                raise KeyLimitError(
                    f"as many requests as this key may have, {key.max_concurrent}, are under way", _SOON
                )
            if key.rate_limit is not None:
                if wait := counts.seconds_until_room(key.rate_limit, now):
                    raise KeyLimitError("this key has made as many requests as it may for now", wait)
                counts.times.append(now)
            counts.running += 1
        return Admitted(lambda: self._release(counts))

    def _release(self, counts: _Counts) -> None:
        with self._lock:
            counts.running -= 1

    def look(self) -> None:
        """Read the file again where it may have changed. Whoever comes meanwhile goes by what is known."""
        now = self._clock()
        if now - self._looked_at < _LOOK_EVERY or not self._reading.acquire(blocking=False):
            return
        self._looked_at = now
        stamp = _Stamp.of(self._path)
        if stamp == self._stamp and self._is_settled:
            self._reading.release()
            return
        self._stamp, self._is_settled = stamp, stamp is not None and stamp.is_settled
        if stamp is None or stamp.size <= _SHORT:
            self._read_again()
        else:
            threading.Thread(target=self._read_again, name="keys", daemon=True).start()

    def _read_again(self) -> None:
        try:
            self._take_what_is_there()
        finally:
            self._reading.release()

    def _take_what_is_there(self) -> None:
        try:
            read: Content | str = Content.read(self._path)
        except SettingsError as error:
            read = str(error)
        if read == self._content:
            return
        self._content = read
        why_not = read if isinstance(read, str) else self._why_not(read)
        if why_not:
            log.warning("the keys stay as they were: %s", shown_in_line(why_not))
        else:
            log.info("%s was read again: %s", self._path, counted(len(self._keys), "key"))

    def _why_not(self, read: Content) -> str:
        """Take what was read; else why it cannot be."""
        try:
            self._take(read)
        except SettingsError as error:
            return str(error)
        return ""

    def _take(self, read: Content) -> None:
        said = KeysFile.parse(read.content, self._path).keys
        if read.is_open:
            log.warning("everybody on this machine may read %s, which says who has keys: chmod o-r", self._path)
        keys = {key.hash: _api_key(name, key) for name, key in said.items()}
        with self._lock:
            self._keys = keys
            self._counts = {name: one for name, one in self._counts.items() if name in said or one.running}


def _api_key(name: str, key: KeySettings) -> ApiKey:
    projects = None if key.projects is None else frozenset(key.projects)
    return ApiKey(name, projects, key.rate_limit, key.max_concurrent, key.operator)
