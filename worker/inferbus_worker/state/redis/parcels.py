"""What waits to be sent to the store, and who waits for its answers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from inferbus_worker.state.errors import StoreAwayError, StoreError
from inferbus_worker.state.redis.calls import Call

log = logging.getLogger("inferbus.store")

#: Calls of one parcel may go to several servers, each with its thread. It is held for no longer than counting takes.
_counting: Final = threading.Lock()


class Parcel:
    """Calls that are answered together, or not at all.

    Whoever has asked waits at `wait`; `then` is for what nobody waits for. The two never come together.

    Attributes:
        keeps: whether it is sent again and again until it has been answered.
        is_given_up: nobody wants its answers any more.
        moves: how often it was sent on to another node of a Cluster.
    """

    __slots__ = ("_answers", "_done", "_error", "_missing", "calls", "failed", "is_given_up", "keeps", "moves", "then")

    def __init__(
        self,
        calls: Sequence[Call[Any]],
        then: Callable[[Any], None] | None = None,
        failed: Callable[[StoreError], None] | None = None,
        *,
        keeps: bool,
        waits: bool,
    ) -> None:
        self.calls = calls
        self.then = then
        self.failed = failed
        self.keeps = keeps
        self.is_given_up = False
        self.moves = 0
        self._answers: list[Any] = [None] * len(calls)
        self._missing = len(calls)
        self._error: StoreError | None = None
        self._done: threading.Lock | None = None
        if waits:
            self._done = threading.Lock()
            self._done.acquire()  # a bare lock: the cheapest thing to wait at

    def wait(self, timeout: float) -> list[Any]:
        """What the store has answered, read.

        Raises:
            StoreError: nothing, or not in time.
        """
        assert self._done is not None  # noqa: S101 - only who asks waits
        if not self._done.acquire(timeout=timeout):
            self.is_given_up = True
            raise StoreAwayError(f"the store has not answered within {timeout:g} s")
        if self._error is not None:
            raise self._error.again()
        return [call.read(answer) for call, answer in zip(self.calls, self._answers, strict=True)]

    def answer(self, number: int, answer: object) -> None:
        self._answers[number] = answer
        with _counting:
            self._missing -= 1
            is_over = not self._missing and self._error is None
        if not is_over:
            return
        if self._done is not None:
            self._done.release()
        elif self.then is not None:
            self._tell(self.then, answer, self.calls[0].read)

    def fail(self, error: StoreError) -> None:
        """Nothing more comes. Said once: what comes for it later is dropped."""
        with _counting:
            if self._error is not None or self._missing <= 0:
                return
            self._error = error
        if self._done is not None:
            self._done.release()
        elif not isinstance(error, StoreAwayError):
            log.error("%s: %s", self.calls[0].name, error)
        if self.failed is not None:
            self._tell(self.failed, error)

    def _tell(self, hear: Callable[[Any], None], said: object, read: Callable[[Any], Any] | None = None) -> None:
        try:
            hear(said if read is None else read(said))
        except Exception:
            log.exception("What was to be done with the answer to %s has failed", self.calls[0].name)

    @property
    def is_over(self) -> bool:
        return self.is_given_up or self._error is not None or self._missing <= 0


class Letter(NamedTuple):
    """One call of a parcel, on its way."""

    parcel: Parcel
    number: int

    @property
    def call(self) -> Call[Any]:
        return self.parcel.calls[self.number]


def fail_all(error: StoreError, letters: Iterable[Letter]) -> None:
    for letter in letters:
        letter.parcel.fail(error)


def letters_of(parcel: Parcel) -> list[Letter]:
    return [Letter(parcel, number) for number in range(len(parcel.calls))]
