"""Carries calls to the store and brings the answers back; nobody waits longer for one than he has said."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from inferbus_worker.settings.store_url import Address
from inferbus_worker.state.errors import StoreAwayError, StoreError, StoreRefusedError
from inferbus_worker.state.redis.calls import Call
from inferbus_worker.state.redis.connection import Store
from inferbus_worker.state.redis.line import Line
from inferbus_worker.state.redis.parcels import Letter, Parcel, letters_of
from inferbus_worker.state.redis.scripted import TYPES
from inferbus_worker.state.redis.wire import Wire

T = TypeVar("T")

#: Seconds in which a call is answered, or has failed.
TIMEOUT: Final = 0.9
#: How often a call is sent on to the node that is said to have its key.
_MOST_MOVES: Final = 3


class Courier:
    """What a worker asks of the store goes through here, from any thread.

    The thread `redis` has one connection, to the server with all that the group shares. Histories have the same one; in
    a Cluster, where they are spread, each node has a thread of its own, so that one which hangs holds up no other.

    Attributes:
        on_change: called in its thread when `is_here` or `reason` has changed.
    """

    def __init__(self, store: Store, key: str, scripts: Mapping[str, str]) -> None:
        """Nothing is connected yet.

        Args:
            store: where it is.
            key: one that has the group's hash tag.
            scripts: the sources of all that calls may name.
        """
        self.on_change: Callable[[], None] = _nothing
        self._store = store
        self._key = key
        self._scripts = scripts
        self._here_since: float | None = None
        self._lock = threading.Lock()
        self._histories: dict[Address, Line] = {}
        types = {f"{key}{name}": kind for name, kind in TYPES.items()}
        self._group = Line("redis", self._to_the_group, key, scripts, self._changed, types=types)

    @property
    def is_here(self) -> bool:
        """Whether the store answers, and takes what is written."""
        return self._here_since is not None

    @property
    def here_since(self) -> float | None:
        """Since when (`time.monotonic`) that has been so without a break."""
        return self._here_since

    @property
    def reason(self) -> str | None:
        """Why it is not so, in one sentence."""
        if self.is_here:
            return None
        return self._group.away or self._group.full or "the store has not been reached yet"

    @property
    def refusal(self) -> StoreRefusedError | None:
        """Why it is not so, where somebody has to change something. It is tried again all the same."""
        return self._group.refusal

    @property
    def unreplicated(self) -> int:
        """Batches that were to outlive the server, and that no replica had taken over within 0.1 s."""
        return self._group.unreplicated

    @property
    def replicas(self) -> int:
        return self._group.replicas

    def start(self) -> None:
        self._group.start()

    def stop(self, timeout: float) -> None:
        """End, after what waits has been sent if the store is there. Comes back after that many seconds at most."""
        until = time.monotonic() + timeout
        with self._lock:
            histories = list(self._histories.values())
        for line in [self._group, *histories]:
            line.stop(max(until - time.monotonic(), 0.0))

    def ask(self, call: Call[T], timeout: float = TIMEOUT) -> T:
        """The store's answer.

        Raises:
            StoreAwayError: there was none within that many seconds. Whether the call has been run nobody knows.
            StoreAnswerError: it was an error.
        """
        answer: T = self.ask_all([call], timeout)[0]
        return answer

    def ask_all(self, calls: Sequence[Call[Any]], timeout: float = TIMEOUT) -> list[Any]:
        """The same of several, which go out together, in their order; one of them that fails, fails them all."""
        if not calls:
            return []
        parcel = Parcel(calls, keeps=False, waits=True)
        self._send(letters_of(parcel))
        return parcel.wait(timeout)

    def post(
        self,
        call: Call[T],
        then: Callable[[T], None] | None = None,
        failed: Callable[[StoreError], None] | None = None,
        *,
        keeps: bool = False,
    ) -> None:
        """Send it, and do not wait.

        Args:
            call: what is to be sent.
            then: called with the answer, in the courier's thread: must wait for nothing.
            failed: called instead, in any thread, where there will be no answer, or an error is one; the same holds.
            keeps: send it again and again until the store has answered. Else it is dropped where the store is away.
        """
        self._send(letters_of(Parcel([call], then, failed, keeps=keeps, waits=False)))

    def _send(self, letters: list[Letter]) -> None:
        if not self._store.is_cluster or not any(letter.call.is_history for letter in letters):
            self._group.put(letters)
            return
        shares: dict[Line, list[Letter]] = {}
        for letter in letters:
            line = self._line_of(letter.call) if letter.call.is_history else self._group
            shares.setdefault(line, []).append(letter)
        for line, share in shares.items():
            line.put(share)

    def _line_of(self, call: Call[Any]) -> Line:
        """The one for a history. Before the Cluster's nodes are known it is the group's, which finds them out."""
        address = self._store.known_place_of(call.keys[0])
        if address is None:
            return self._group
        with self._lock:
            line = self._histories.get(address)
            if line is None:
                line = Line(
                    f"redis-{len(self._histories)}",
                    lambda: self._store.wire(address),
                    call.keys[0],
                    self._scripts,
                    _nothing,
                    self._moved,
                )
                self._histories[address] = line
                line.start()
        return line

    def _to_the_group(self) -> Wire:
        self._store.refresh()
        return self._store.wire(self._store.place_of(self._key))

    def _moved(self, letters: list[Letter]) -> None:
        """Histories of which a node says that another has them."""
        try:
            self._store.refresh()
        except StoreError as error:
            for letter in letters:
                letter.parcel.fail(error)
            return
        for letter in letters:
            letter.parcel.moves += 1
            if letter.parcel.moves > _MOST_MOVES and not letter.parcel.keeps:
                letter.parcel.fail(StoreAwayError("the Cluster's nodes do not agree on who has a history"))
            else:
                self._line_of(letter.call).put([letter])

    def _changed(self) -> None:
        is_here = self._group.away is None and self._group.full is None
        self._here_since = time.monotonic() if is_here else None
        self.on_change()


def _nothing() -> None:
    pass
