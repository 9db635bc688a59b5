"""The replies of one request: what has been said, what waits to be said, and in which half of the contract.

An engine's thread only notes what is new; the network thread encodes it when its turn comes. Here, and nowhere else,
deltas are put together: those that come closer than the interval, and those that pile up behind a slow link. So `seq`
has no gaps of our own making.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from inferbus_client.contract.wire import ErrorReply, Failure, ReplyWriter
from inferbus_client.contract.wire.messages import ToolCall
from inferbus_worker.chat import CallDelta, memory_of, publishable
from inferbus_worker.outcome import Answered, Timings
from inferbus_worker.replies.address import ReplyAddress
from inferbus_worker.replies.calls import joined, memory_of_deltas
from inferbus_worker.replies.outgoing import Outgoing

log = logging.getLogger("inferbus.replies")

#: So much of a stream's deltas, in bytes, the backlog learns only when they are submitted.
_UNCOUNTED: Final = 4096
#: Instead of an answer that had to go, for want of room.
_NO_ROOM: Final = Failure("overloaded", "The answer could not be sent in time.")


class _Unsent:
    """What the sender has yet to say."""

    __slots__ = ("accepted", "counted", "deltas", "size", "terminal")

    def __init__(self) -> None:
        self.accepted: tuple[int, int | None] | None = None
        self.deltas: list[tuple[str, str, Sequence[CallDelta]]] = []
        #: In the words of the flow or, where others may have to say the very same, as it is published.
        self.terminal: Answered | Failure | Outgoing | None = None
        self.size = 0
        #: How much of the size the backlog knows.
        self.counted = 0


class Backlog:
    """How much text waits in reply streams for the sender, in bytes of memory; any thread may add to it."""

    def __init__(self) -> None:
        self.size = 0
        self._lock = threading.Lock()

    def add(self, change: int) -> None:
        with self._lock:
            self.size += change


class ReplyStream:
    """One request's replies, from `accepted` to the terminal one. Nothing follows that.

    Args:
        address: where they go.
        submit: hands this stream to the sender; called once for any number of things noted before the sender comes.
        backlog: where this stream's share of what waits is counted.
        delta_interval: seconds between two deltas, at least. The first one never waits; what is held back leaves with
            what comes after that time, or with the end.
    """

    __slots__ = (
        *("_accepted", "_backlog", "_due", "_interval", "_is_over", "_is_submitted", "_lock", "_seq"),
        *("_submit", "_unsent", "_weight", "_writer", "address"),
    )

    def __init__(
        self,
        address: ReplyAddress,
        submit: Callable[[ReplyStream], None],
        backlog: Backlog,
        delta_interval: float = 0.0,
    ) -> None:
        self.address = address
        self._submit = submit
        self._backlog = backlog
        self._interval = delta_interval
        self._due = 0.0
        self._unsent: _Unsent | None = None
        self._is_submitted = self._is_over = False
        self._seq = address.first_seq
        self._writer: ReplyWriter | None = None
        self._lock = threading.Lock()
        self._accepted = False
        self._weight = len(address.topic) + len(address.request_id) + len(address.correlation_data or b"")
        if address.trace is not None:
            self._weight += address.trace.size

    @property
    def owed(self) -> bool:
        """Whether the request was accepted, or stays with the broker until it is answered."""
        return self._accepted or self.address.receipt is not None

    @property
    def refuses(self) -> bool:
        """Whether a failure is all that it has to say to a request that was not accepted."""
        unsent = self._unsent
        return not self._accepted and unsent is not None and isinstance(unsent.terminal, Failure)

    @property
    def next_seq(self) -> int:
        """The number of what is said next, when all that is noted has been said."""
        with self._lock:
            return self._seq + (0 if self._unsent is None else _count_before_end(self._unsent))

    def hold(self) -> None:
        """Note what is said, and let nothing out before `release`. For whoever has just opened it."""
        self._is_submitted = True

    def release(self) -> None:
        """Let out what was held."""
        with self._lock:
            submits = self._is_submitted = self._unsent is not None
        if submits:
            self._submit(self)

    def accepted(self, position: int, eta_ms: int | None) -> None:
        """The request is in the queue. The text half does not say so."""
        self._accepted = True
        if self.address.json:
            with self._lock:
                self._noting(0).accepted = position, eta_ms
                self._count()
                submits = self._submits()
            if submits:
                self._submit(self)

    def delta(self, text: str, reasoning: str = "", calls: Sequence[CallDelta] = ()) -> None:
        """More of the answer. The text half waits for the whole."""
        if not self.address.json:
            return
        with self._lock:
            if self._is_over:
                return
            unsent = self._noting(_memory(text, reasoning) + (memory_of_deltas(calls) if calls else 0))
            unsent.deltas.append((text, reasoning, calls))
            is_due = not self._is_submitted and (not self._interval or time.monotonic() >= self._due)
            submits = is_due and self._submits()
            if submits or unsent.size - unsent.counted > _UNCOUNTED:
                self._count()
        if submits:
            self._submit(self)

    def end(self, outcome: Answered | Failure) -> None:
        """The terminal reply."""
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
            size = 0
            if isinstance(outcome, Answered):
                size = _memory(outcome.text, outcome.reasoning)
                size += memory_of(outcome.tool_calls) if outcome.tool_calls else 0
            self._noting(size).terminal = outcome
            self._count()
            submits = self._submits()
        if submits:
            self._submit(self)
        if self.address.trace is not None:
            self.address.trace.end(outcome)

    def seal(self, outcome: Answered | Failure) -> Outgoing:
        """The terminal reply as it is to be published, by whomever; nothing is noted after it but `end_with` it."""
        with self._lock:
            self._is_over = True
        seq = self.next_seq
        return self._terminal_in_json(outcome, seq) if self.address.json else self._in_text(outcome)

    def end_with(self, sealed: Outgoing, outcome: Answered | Failure) -> None:
        """The terminal reply that `seal` has made of this outcome."""
        with self._lock:
            self._noting(len(sealed.payload)).terminal = sealed
            self._count()
            submits = self._submits()
        if submits:
            self._submit(self)
        if self.address.trace is not None:
            self.address.trace.end(outcome)

    def abandon(self) -> None:
        """Somebody else answers the request: say nothing more, the terminal reply neither."""
        with self._lock:
            self._is_over = True
        self.drop()

    def outgoing(self) -> Iterable[Outgoing]:
        """What is to be published now, in order. For the network thread alone."""
        with self._lock:
            unsent, self._unsent = self._unsent, None
            self._is_submitted = False
            seq = self._seq
            if unsent is not None:
                self._seq += _count_before_end(unsent) + (unsent.terminal is not None)
                if unsent.deltas and self._interval:
                    self._due = time.monotonic() + self._interval
        if unsent is None:
            return ()
        self._backlog.add(-unsent.counted)
        if self.address.json:
            return self._in_json_half(unsent, seq)
        return () if unsent.terminal is None else (self._in_text(unsent.terminal),)

    def shed(self) -> tuple[int, bool]:
        """Let go of what waits; of the end an error stays that asks for another try. See `outbox.Source`."""
        with self._lock:
            unsent, self._unsent = self._unsent, None
            if unsent is None:
                self._is_submitted = False
                return 0, False
            # Their numbers are used up, so that the requester sees the gap.
            dropped = _count_before_end(unsent)
            self._seq += dropped
            if unsent.terminal is not None:
                self._unsent = _Unsent()
                self._unsent.terminal = unsent.terminal
                self._unsent.size = self._unsent.counted = self._weight
                if isinstance(unsent.terminal, Outgoing):
                    # Others may have to say just this, so nothing stands in its place.
                    self._unsent.size = self._unsent.counted = self._weight + len(unsent.terminal.payload)
                if isinstance(unsent.terminal, Answered):
                    self._unsent.terminal = _NO_ROOM
                    dropped += 1
            kept = 0 if self._unsent is None else self._unsent.size
            self._is_submitted = bool(kept)
        self._backlog.add(kept - unsent.counted)
        return dropped, bool(kept)

    def drop(self) -> int:
        """Let go of everything that waits. See `outbox.Source`."""
        with self._lock:
            unsent, self._unsent = self._unsent, None
            self._is_submitted = False
            if unsent is None:
                return 0
            dropped = _count_before_end(unsent) + (unsent.terminal is not None)
            self._seq += dropped
        self._backlog.add(-unsent.counted)
        return dropped

    def _noting(self, size: int) -> _Unsent:
        """What the sender has yet to say, which takes `size` bytes more of memory now; under the lock."""
        if self._unsent is None:
            self._unsent = _Unsent()
            self._unsent.size = self._weight
        self._unsent.size += size
        return self._unsent

    def _count(self) -> None:
        """Tell the backlog of all that waits here; under the lock."""
        unsent = self._unsent
        if unsent is not None:
            self._backlog.add(unsent.size - unsent.counted)
            unsent.counted = unsent.size

    def _submits(self) -> bool:
        """Whether the sender has to be called: it has not been since it last came; under the lock."""
        submits, self._is_submitted = not self._is_submitted, True
        return submits

    def _in_json_half(self, unsent: _Unsent, seq: int) -> Iterator[Outgoing]:
        if unsent.accepted is not None:
            yield self._in_json(self._written.accepted(seq, *unsent.accepted, self.address.worker), terminal=False)
            seq += 1
        if unsent.deltas:
            yield self._delta(unsent.deltas, seq)
            seq += 1
        if unsent.terminal is not None:
            yield self._terminal_in_json(unsent.terminal, seq)

    def _in_text(self, outcome: Answered | Failure | Outgoing) -> Outgoing:
        address = self.address
        if isinstance(outcome, Outgoing):
            return outcome
        if isinstance(outcome, Answered):
            return Outgoing(address.topic, outcome.text.encode(errors="replace"), status="ok", address=address)
        return Outgoing(
            address.topic,
            outcome.sentence.encode(errors="replace"),
            status=outcome.code,
            retry_after_ms=outcome.retry_after_ms,
            address=address,
        )

    def _terminal_in_json(self, outcome: Answered | Failure | Outgoing, seq: int) -> Outgoing:
        if isinstance(outcome, Outgoing):
            return outcome
        if isinstance(outcome, Answered):
            try:
                return self._in_json(self._done(outcome, seq), status="ok")
            except ValueError as error:
                # Whatever pydantic finds wrong. Its words would quote the answer.
                log.error("an answer could not be written (%s)", type(error).__name__)  # noqa: TRY400
                outcome = Failure("engine_error")
        address = self.address
        whose = {"request_id": address.request_id, "session_id": address.session_id}
        refusal = ErrorReply.of(outcome, **whose, seq=seq, run=address.run)
        return self._in_json(refusal.encode(), status=outcome.code)

    def _done(self, outcome: Answered, seq: int) -> bytes:
        timings = outcome.timings
        return self._written.done(
            seq,
            publishable(outcome.text),
            outcome.finish_reason,
            usage=outcome.usage,
            timing=None if timings is None else _milliseconds(timings),
            reasoning=None if outcome.reasoning is None else publishable(outcome.reasoning),
            model=outcome.model,
            tool_calls=[ToolCall.model_validate(call).model_dump() for call in outcome.tool_calls] or None,
        )

    def _delta(self, deltas: list[tuple[str, str, Sequence[CallDelta]]], seq: int) -> Outgoing:
        text = publishable("".join([text for text, _, _ in deltas]))
        reasoning = publishable("".join([reasoning for _, reasoning, _ in deltas])) or None
        calls = joined([call for _, _, calls in deltas for call in calls]) or None
        return self._in_json(self._written.delta(seq, text, reasoning, calls), terminal=False)

    def _in_json(self, payload: bytes, status: str | None = None, *, terminal: bool = True) -> Outgoing:
        address = self.address
        return Outgoing(address.topic, payload, json=True, status=status, terminal=terminal, address=address)

    @property
    def _written(self) -> ReplyWriter:
        if self._writer is None:
            self._writer = ReplyWriter(self.address.request_id, self.address.session_id, self.address.run)
        return self._writer


def _count_before_end(unsent: _Unsent) -> int:
    """How many messages come before the terminal one, of which there is one at most."""
    return (unsent.accepted is not None) + bool(unsent.deltas)


def _memory(text: str, reasoning: str | None) -> int:
    """What the words take, in bytes: one, two or four a character."""
    return sys.getsizeof(text) + (sys.getsizeof(reasoning) if reasoning else 0)


def _milliseconds(timings: Timings) -> tuple[float, float | None, float]:
    first = timings.first_token
    return (
        round(timings.queue * 1000, 3),
        None if first is None else round(first * 1000, 3),
        round(timings.total * 1000, 3),
    )
