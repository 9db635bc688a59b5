"""One row per request, so that every one is accounted for: sent is the sum of all outcomes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from inferbus_client.exchange.answer import Answer
from inferbus_client.exchange.assembly import AnyReply

#: Said at admission: these requests were never taken on. Any other failure ended one that was.
REFUSALS: Final = frozenset(
    {
        "invalid_request",
        "context_too_long",
        "session_busy",
        "message_too_large",
        "rate_limited",
        "overloaded",
        "engine_unavailable",
        "shutting_down",
    }
)


class Outcome(Enum):
    """How a request ended, as far as we know."""

    UNFINISHED = "unfinished"
    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"
    LOST = "lost"
    LATE = "late"


@dataclass(slots=True)
class Row:
    """One request.

    Attributes:
        scheduled: when it was due, on the ledger's clock. Latency counts from here, so that a request that we sent
            too late, because we or the worker were busy, does not look fast.
        code: the failure's code, where it was refused or failed.
        first_token, total: seconds from `scheduled`.
        prompt_tokens, tokens: in and out.
        intervals: seconds between the parts of its stream.
        copies: terminal replies beyond the first.
        gaps: messages of its stream that never arrived.
        runs: how often another worker of a group began it anew.
    """

    scheduled: float
    outcome: Outcome = Outcome.UNFINISHED
    code: str | None = None
    first_token: float | None = None
    total: float | None = None
    prompt_tokens: int = 0
    tokens: int = 0
    intervals: Sequence[float] = ()
    copies: int = 0
    gaps: int = 0
    runs: int = 0

    @property
    def per_token(self) -> float | None:
        """Seconds for each output token after the first; None where there were no two, or the first was not seen."""
        if self.total is None or self.first_token is None or self.tokens <= 1:
            return None
        return (self.total - self.first_token) / (self.tokens - 1)


class Ledger:
    """The rows of one run. Strays come from network threads, the rest from the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows: dict[str, Row] = {}
        self._lock = threading.Lock()

    def sent(self, request_id: str, scheduled: float) -> None:
        with self._lock:
            self._rows[request_id] = Row(scheduled)

    def answered(self, request_id: str, answer: Answer, *, streamed: bool, intervals: Sequence[float] = ()) -> None:
        """The answer is complete, now."""
        with self._lock:
            row = self._rows[request_id]
            row.outcome, row.gaps, row.runs = Outcome.ANSWERED, answer.lost, answer.run
            row.total = self._clock() - row.scheduled
            waited = row.total - answer.total_s
            if streamed:
                row.first_token = waited + answer.first_token_s
            elif answer.timing is not None and answer.timing.first_token_ms is not None:
                row.first_token = waited + answer.timing.first_token_ms / 1000
            row.intervals = intervals
            if answer.usage is not None:
                row.prompt_tokens, row.tokens = answer.usage.prompt_tokens, answer.usage.completion_tokens

    def refused_or_failed(self, request_id: str, code: str) -> None:
        with self._lock:
            row = self._rows[request_id]
            row.outcome = Outcome.REFUSED if code in REFUSALS else Outcome.FAILED
            row.code = code

    def lost(self, request_id: str) -> None:
        """Nothing terminal came in time."""
        with self._lock:
            self._rows[request_id].outcome = Outcome.LOST

    def stray(self, reply: AnyReply) -> None:
        """A reply that nobody waits for any more: late after a loss, otherwise a repeat."""
        if not reply.terminal:
            return
        with self._lock:
            row = self._rows.get(reply.request_id)
            if row is None:
                return
            if row.outcome is Outcome.LOST:
                row.outcome = Outcome.LATE
            else:
                row.copies += 1

    # --- reading ---

    @property
    def rows(self) -> list[Row]:
        with self._lock:
            return list(self._rows.values())

    def count(self) -> Counter[Outcome]:
        return Counter(row.outcome for row in self.rows)

    def codes(self, outcome: Outcome) -> Counter[str]:
        return Counter(row.code for row in self.rows if row.outcome is outcome and row.code is not None)


def percentile(values: Iterable[float], share: float) -> float | None:
    """The value below which `share` (0 to 1) of the values lie, interpolated; None where there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
