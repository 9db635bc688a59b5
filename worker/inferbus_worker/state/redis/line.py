"""One thread that speaks with the store: whatever has come meanwhile goes out together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final

from inferbus_client.errors import InferbusError
from inferbus_client.units import counted
from inferbus_worker.seldom import Seldom
from inferbus_worker.state.errors import StoreAnswerError, StoreAwayError, StoreError, StoreRefusedError
from inferbus_worker.state.redis.facts import NO_EVICTION, rows_of
from inferbus_worker.state.redis.parcels import Letter, fail_all
from inferbus_worker.state.redis.repertoire import Repertoire
from inferbus_worker.state.redis.wire import Wire
from inferbus_worker.state.redis.words import in_words, verdict_on

log = logging.getLogger("inferbus.store")

#: Seconds between two words about a replica that lags.
_SAY_EVERY: Final = 10.0

#: Seconds until the store is tried again that did not answer: the first time, and at most.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 1.0
#: Calls and bytes that go out together at most.
_MOST: Final = 512
_MOST_BYTES: Final = 1024 * 1024
#: How often a call is sent in one go: scripts may be missing, and keys have moved.
_ROUNDS: Final = 3
#: Seconds between two looks at how many replicas there are.
_LOOK: Final = 10.0
#: Calls after which nobody may forget what they said.
_WAITED_FOR: Final = frozenset({"confirm", "commit"})
#: Milliseconds that a replica has to take over what such calls said.
_REPLICA_TIMEOUT: Final = 100
#: What those are told who come too late.
_LEFT: Final = "this worker has left the store"


class Line:
    """The calls for one server, in their order, and the thread that sends them.

    Attributes:
        away: why the server cannot be reached, or None.
        refusal: the same as an error, where that is not for waiting to change; or None.
        full: why it takes no writes although it can be, or None.
        replicas: those that it had when it was last asked.
        unreplicated: batches that were to outlive the server and that no replica had taken over in time.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Wire],
        key: str,
        scripts: Mapping[str, str],
        on_change: Callable[[], None],
        on_moved: Callable[[list[Letter]], None] | None = None,
        types: Mapping[str, str] | None = None,
    ) -> None:
        """A line that is not open yet.

        Args:
            name: the thread's.
            connect: makes a connection to the server, wherever that is now.
            key: one that is there; the part of it in braces says where.
            scripts: their sources, by name.
            on_change: called in the thread when `away` or `full` has changed.
            on_moved: takes histories that another has now, as the server says; for all else that one is looked for.
            types: what lies at keys without which the server is of no use.
        """
        self.away: str | None = None
        self.refusal: StoreRefusedError | None = None
        self.full: str | None = None
        self.replicas = 0
        self.unreplicated = 0
        self._seldom = Seldom(log, every=_SAY_EVERY)
        self._new_wire = connect
        self._scripts = Repertoire(scripts)
        self._on_change = on_change
        self._on_moved = on_moved
        self._types = types or {}
        self._inbox: SimpleQueue[list[Letter] | None] = SimpleQueue()
        self._kept: dict[Letter, None] = {}
        self._room = f"{key}room"
        self._said: tuple[str | None, str | None] | None = None
        self._eviction: str | None = None
        self._wire: Wire | None = None
        self._pause = _FIRST_PAUSE
        self._next_try = 0.0
        self._next_look = 0.0
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Send what waits, if the store is there, and end; whoever waits longer is told so."""
        self._is_stopping = True
        self._inbox.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def put(self, letters: list[Letter]) -> None:
        """Send them when their turn comes; at once they fail where that could only be for nothing."""
        if self._is_stopping:
            fail_all(StoreAwayError(_LEFT), letters)
        elif self.away is not None and not letters[0].parcel.keeps:
            fail_all(StoreAwayError(self.away), letters)
        else:
            self._inbox.put(letters)

    def _run(self) -> None:
        is_open = True
        while is_open:
            wait = (self._next_look if self._wire and not self.full else self._next_try) - time.monotonic()
            arrived, is_open = self._arrived(max(wait, 0.0))
            letters, self._kept = [*self._kept, *arrived], {}
            try:
                self._serve(letters)
            except StoreError as error:
                self._lose(error, letters)
            except Exception:
                log.exception("The connection to the store is made anew")
                self._lose(StoreAwayError("a fault of this worker's own; its log says which"), letters)
        if self._kept:
            lost = counted(len(self._kept), "outcome")
            log.warning("%s could not be brought to the store: %s", lost, self.away or self.full)
        fail_all(StoreAwayError(_LEFT), [*self._kept, *self._arrived(0)[0]])
        if self._wire is not None:
            self._wire.close()

    def _arrived(self, wait: float) -> tuple[list[Letter], bool]:
        """What has come, after there is something or the time is over; and whether more may."""
        letters: list[Letter] = []
        try:
            some = self._inbox.get(timeout=wait) if wait else self._inbox.get_nowait()
            while some is not None:
                letters += some
                some = self._inbox.get_nowait()
        except Empty:
            return letters, True
        return letters, False

    def _serve(self, letters: list[Letter]) -> None:
        now = time.monotonic()
        if self._wire is None and now >= self._next_try:
            self._connect()
        if self._wire is None:
            self._set_aside(StoreAwayError(self.away or ""), letters)
            return
        if self.full is not None and now >= self._next_try:
            self._change(None, self._here.lacks_room(self._room))
            self._next_try = time.monotonic() + _LONGEST_PAUSE / 2
        if now >= self._next_look:
            self.replicas = int(rows_of(self._here.try_to("INFO", "replication")).get("connected_slaves", 0))
            self._next_look = time.monotonic() + _LOOK
        self._deliver([letter for letter in letters if not letter.parcel.is_over])

    def _connect(self) -> None:
        try:
            wire = self._new_wire()
            try:
                self._scripts.teach(wire)
                self._check_types(wire)
                full = wire.lacks_room(self._room)
            except BaseException:
                wire.close()
                raise
        except InferbusError as error:
            self.refusal = error if isinstance(error, StoreRefusedError) else None
            self._lose(StoreAwayError(str(error)), [])
            return
        self._wire = wire
        self.refusal = None
        self.replicas = wire.facts.replicas
        self._next_look = time.monotonic() + _LOOK
        self._pause = _FIRST_PAUSE
        self._warn_of_eviction(wire)
        self._change(None, full)

    def _check_types(self, wire: Wire) -> None:
        if (foreign := wire.foreign(self._types)) is not None:
            raise StoreRefusedError(foreign)

    def _warn_of_eviction(self, wire: Wire) -> None:
        """Once, and again where it is another: after a failover, or when somebody has changed it."""
        before, self._eviction = self._eviction, wire.facts.eviction
        if self._eviction not in {None, before}:
            log.warning("%s: %s. %s", wire.place, self._eviction, NO_EVICTION)

    def _lose(self, error: StoreError, letters: Sequence[Letter]) -> None:
        """The server is away: nobody need wait any longer, and what must not be lost is kept."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        self._next_try = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        self._change(error.reason, self.full)
        self._set_aside(error, letters)

    def _set_aside(self, error: StoreError, letters: Sequence[Letter]) -> None:
        for letter in letters:
            if letter.parcel.keeps:
                self._kept[letter] = None
            else:
                letter.parcel.fail(error)

    def _change(self, away: str | None, full: str | None) -> None:
        if (away, full) == self._said:
            return
        self.away, self.full = self._said = away, full
        try:
            self._on_change()
        except Exception:
            log.exception("What was to be done when the store went or came back has failed")

    def _deliver(self, letters: list[Letter]) -> None:
        """All of them, in as few round trips as their sizes allow."""
        waiting = letters
        for _ in range(_ROUNDS):
            again: list[Letter] = []
            rest = iter(waiting)
            for batch, packed in self._batches(rest):
                try:
                    again += self._exchange(batch, packed)
                except StoreError as error:
                    self._lose(error, [*again, *batch, *rest])
                    return
            if not (waiting := again):
                return
        self._lose(StoreAwayError("the store's scripts or keys do not stay where they are"), waiting)

    def _batches(self, letters: Iterator[Letter]) -> Iterator[tuple[list[Letter], list[bytes]]]:
        batch: list[Letter] = []
        packed: list[bytes] = []
        size = 0
        for letter in letters:
            try:
                command = self._here.pack(self._scripts.command(letter.call))
            except StoreAnswerError as error:
                letter.parcel.fail(error)
                continue
            batch.append(letter)
            packed.append(command)
            size += len(command)
            if size > _MOST_BYTES or len(batch) == _MOST:
                yield batch, packed
                batch, packed, size = [], [], 0
        if batch:
            yield batch, packed

    @property
    def _here(self) -> Wire:
        if self._wire is None:
            raise StoreAwayError("the store is away")
        return self._wire

    def _exchange(self, batch: Sequence[Letter], packed: list[bytes]) -> list[Letter]:
        """Send a batch and hand out its answers.

        Returns:
            Those to be sent again.
        """
        wire = self._here
        must_last = self.replicas > 0 and any(letter.call.name in _WAITED_FOR for letter in batch)
        if must_last:
            packed.append(wire.pack(("WAIT", 1, _REPLICA_TIMEOUT)))
        answers = wire.exchange(packed)
        if must_last and answers[-1] == 0:
            self.unreplicated += 1
            self._seldom.warning("no replica has in time what was written to the store: a failover now would lose it")
        again, moved = self._handed_out(zip(batch, answers, strict=False))
        if again:
            self._scripts.teach(wire)
        if self._on_moved is not None and (elsewhere := [letter for letter in moved if letter.call.is_history]):
            self._on_moved(elsewhere)
            moved = [letter for letter in moved if not letter.call.is_history]
        if moved:
            wire.close()
            self._wire = self._new_wire()
            self._scripts.teach(self._wire)
            again += moved
        return again

    def _handed_out(self, answered: Iterable[tuple[Letter, Any]]) -> tuple[list[Letter], list[Letter]]:
        """Give each its answer.

        Returns:
            Those whose scripts the server has forgotten, and those whose keys another has.

        Raises:
            StoreError: it would answer nothing otherwise; the others have their answers.
        """
        again: list[Letter] = []
        moved: list[Letter] = []
        broken: StoreError | None = None
        for letter, answer in answered:
            if not isinstance(answer, Exception):
                letter.parcel.answer(letter.number, answer)
                continue
            verdict = verdict_on(answer)
            if verdict == "no script":
                again.append(letter)
            elif verdict == "moved":
                moved.append(letter)
            elif verdict == "not ready":
                broken = in_words(answer, self._here.place)
            elif verdict == "wrong type" and broken is not None:
                continue  # it is what is broken, and was asked for more than once
            elif verdict == "wrong type" and (foreign := self._here.foreign(self._types)) is not None:
                broken = StoreAwayError(foreign)
            else:
                self._refused(letter, in_words(answer, self._here.place), is_full=verdict == "no room")
        if broken is not None:
            raise broken
        return again, moved

    def _refused(self, letter: Letter, error: StoreError, *, is_full: bool) -> None:
        if not is_full:
            letter.parcel.fail(error)
            return
        self._set_aside(error, [letter])
        if self.full is None:
            self._next_try = time.monotonic() + _FIRST_PAUSE
            self._change(self.away, error.reason)
