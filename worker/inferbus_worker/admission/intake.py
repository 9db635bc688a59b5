"""The inbox between the network thread and admission: requests, resets and cancels, in the order of their arrival.

While nothing in admission can wait, it runs in place, in the network thread, and the inbox is empty. Where something
can (a token budget asks the tokenizer; a shared store asks another machine) it runs in a thread of its own, and the
network thread waits for nothing. What waits is bounded in bytes; over that the network thread refuses by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from inferbus_client.contract.topics import Kind
from inferbus_client.contract.wire import Failure
from inferbus_worker.admission.arrival import Arrival
from inferbus_worker.state.protocols import Levels

log = logging.getLogger("inferbus.intake")

#: What an arrival takes besides what its requester has written, in bytes; measured, rounded up.
_ARRIVAL_BYTES: Final = 1024
#: Messages that are handled together.
_AT_ONCE: Final = 64
#: A cancel is small and makes room: it finds this much more of the bound than a request, as a share.
_FOR_CANCELS: Final = 1.125


class Handler(Protocol):
    """Does what messages ask for."""

    def handle(self, arrival: Arrival) -> bool:
        """Do it; whether a reply to this message will follow."""
        ...

    def refuse(self, arrival: Arrival, failure: Failure) -> bool:
        """Do nothing of it, and say why where there is somebody to say it to; whether there is. From any thread."""
        ...


class Intake:
    """See above. `put` is for the network thread.

    Args:
        handler: does what a message asks for.
        unanswered: told of each message that gets no reply; in the thread that handles it.
        max_bytes: bound on what waits.
        in_own_thread: whether admission may have to wait.
        together: handles all that has come, `_AT_ONCE` at most, in its order, where one round trip serves many; it
            tells `unanswered` by itself. It always has a thread of its own.
        clock: the worker's monotonic one: what waits here counts as come when it came.
    """

    def __init__(
        self,
        handler: Handler,
        unanswered: Callable[[Arrival], None],
        *,
        max_bytes: int,
        in_own_thread: bool,
        together: Callable[[Sequence[Arrival]], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._handler = handler
        self._unanswered = unanswered
        self._max_bytes = max_bytes
        self._together = together
        self._clock = clock
        self._waiting: deque[Arrival] = deque()
        self._bytes = 0
        self._is_stopped = False
        self._changed = threading.Condition(threading.Lock())
        self._thread = threading.Thread(target=self._work, name="intake", daemon=True) if in_own_thread else None

    def start(self) -> None:
        if self._thread is not None:
            self._thread.start()

    def put(self, arrival: Arrival) -> None:
        """Handle a message, or let it wait for its turn."""
        if self._thread is None:
            self._handle(arrival)
            return
        if arrival.since is None:
            arrival = arrival._replace(since=self._clock())
        size = _size(arrival)
        bound = self._max_bytes * (_FOR_CANCELS if arrival.address.kind is Kind.CANCEL else 1)
        with self._changed:
            has_room = self._bytes + size <= bound and not self._is_stopped
            if has_room:
                self._waiting.append(arrival)
                self._bytes += size
                self._changed.notify()
        if not has_room:
            self._refuse(arrival, Failure("shutting_down" if self._is_stopped else "overloaded"))

    def stop(self, timeout: float) -> None:
        """Handle what waits, for at most `timeout` seconds; what is left then is refused, but for the one in hand."""
        deadline = time.monotonic() + timeout
        while self._waiting and self._thread is not None and time.monotonic() < deadline:
            time.sleep(0.005)
        with self._changed:
            self._is_stopped = True
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        for arrival in left:
            self._refuse(arrival, Failure("shutting_down"))
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def levels(self) -> Levels:
        return {"intakeBytes": (self._bytes, self._max_bytes)}

    def _work(self) -> None:
        while arrivals := self._take():
            if self._together is not None:
                self._handle_all(arrivals, self._together)
            else:
                self._handle(arrivals[0])
            with self._changed:
                self._bytes -= sum(map(_size, arrivals))

    def _take(self) -> list[Arrival]:
        """Those that have waited longest, waiting for one; none at the end. The others `stop` still finds."""
        with self._changed:
            while not self._waiting and not self._is_stopped:
                self._changed.wait()
            most = min(len(self._waiting), 1 if self._together is None else _AT_ONCE)
            return [self._waiting.popleft() for _ in range(most)]

    def _handle_all(self, arrivals: Sequence[Arrival], together: Callable[[Sequence[Arrival]], None]) -> None:
        try:
            together(arrivals)
        except BaseException:  # this thread must not end, since all wait for it
            log.exception("messages could not be handled")
            for arrival in arrivals:
                self._refuse(arrival, Failure("engine_error"))

    def _handle(self, arrival: Arrival) -> None:
        try:
            is_answered = self._handler.handle(arrival)
        except BaseException:  # a tokenizer's panic is no `Exception`, and must not end the thread that all wait for
            log.exception("a message could not be handled")
            self._refuse(arrival, Failure("engine_error"))
            return
        if not is_answered:
            self._unanswered(arrival)

    def _refuse(self, arrival: Arrival, failure: Failure) -> None:
        try:
            is_answered = self._handler.refuse(arrival, failure)
        except Exception:
            log.exception("a message could not be refused")
            is_answered = False
        if not is_answered:
            self._unanswered(arrival)


def _size(arrival: Arrival) -> int:
    message = arrival.message
    # All that a stranger makes as long as he likes.
    named = sum(len(name) + len(value) for name, value in message.user_properties)
    replies = len(message.response_topic or "") + len(message.correlation_data or b"")
    return _ARRIVAL_BYTES + len(message.payload) + len(message.topic) + replies + named
