"""The ledger of a fault trial: one row per request, and what became of it.

The simulated engine echoes, so a request's own text is the only right answer to it: anything else is corrupt, and an
answer on another session's topic has leaked. Of a request's terminal replies after the first, those count as repeated
that say byte for byte the same: what two workers of a group may say, where one was lost between writing and sending it.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

#: Of one request's fate: `lost` counts those that the broker had taken and nobody answered; `duplicate` are terminal
#: replies after the first, and `repeated` those of them that are the first one's very bytes.
COLUMNS: Final = ("sent", "accepted", "terminal", "lost", "duplicate", "repeated", "corrupt", "leaked")


@dataclass(slots=True)
class Row:
    """One request.

    Attributes:
        taken: whether the broker has it (QoS 0: whether it left us).
        accepted: how often somebody said so.
        ends: its terminal replies.
        said: the first of them, as a hash.
        repeated: how many of the others are the very same.
        run: the highest that a reply named.
        stale: terminal replies of a run lower than that.
        worker: who said last that it is accepted.
    """

    topic: str
    text: str | None
    taken: Callable[[], bool]
    accepted: int = 0
    ends: list[str] = field(default_factory=list)
    prompt_tokens: int | None = None
    said: int | None = None
    repeated: int = 0
    run: int = 0
    stale: int = 0
    worker: str | None = None


class Ledger:
    """Filled by any thread; `tally` counts. `keep=False` drops rows that ended well, for trials of a million."""

    def __init__(self, *, keep: bool = True) -> None:
        self.rows: dict[str, Row] = {}
        self.outcomes: Counter[str] = Counter()
        self._keep = keep
        self._counts: Counter[str] = Counter()
        #: Those that are not kept and ended before anybody said that they are accepted, with their topics: in a group
        #: one worker says that, and another one may be faster with the answer.
        self._early: dict[str, str] = {}
        self._lock = threading.Lock()

    def sent(self, request_id: str, topic: str, text: str | None, taken: Callable[[], bool] = lambda: True) -> None:
        """A request is about to leave, to be answered on `topic` with `text` (None: with whatever a model says)."""
        with self._lock:
            self.rows[request_id] = Row(topic, text, taken)
            self._counts["sent"] += 1

    def heard(self, topic: str, payload: bytes) -> str | None:
        """A reply has come; the id of the request that it ends, if it ends one."""
        try:
            reply = json.loads(payload)
            _ = reply["type"], reply["requestId"]
        except (ValueError, TypeError, KeyError):
            with self._lock:
                self._counts["corrupt"] += 1
            return None
        with self._lock:
            return self._note(topic, payload, reply)

    @property
    def unanswered(self) -> int:
        """Requests without a terminal reply."""
        with self._lock:
            return sum(not row.ends for row in self.rows.values())

    def describe_unanswered(self, most: int = 5) -> str:
        """How many requests wait for a terminal reply, and how far the first of them have come."""
        with self._lock:
            waiting = [(name, row) for name, row in self.rows.items() if not row.ends]
        rows = (f"{name}: taken {row.taken()}, accepted {row.accepted} times" for name, row in waiting[:most])
        return f"{len(waiting)} requests; {'; '.join(rows)}"

    @property
    def heard_of(self) -> int:
        """Requests that the worker has said something of."""
        with self._lock:
            return sum(bool(row.accepted or row.ends) for row in self.rows.values())

    @property
    def replies(self) -> int:
        """Terminal replies so far."""
        return sum(self.outcomes.values())

    def tally(self) -> dict[str, int]:
        """The sum of every column; `lost` is final only when nothing more can come."""
        with self._lock:
            counts = Counter(self._counts)
            for row in self.rows.values():
                counts["lost"] += not row.ends and row.taken()
                counts["accepted"] += bool(row.accepted)
                counts["terminal"] += bool(row.ends)
                counts["duplicate"] += max(len(row.ends) - 1, 0)
                counts["repeated"] += row.repeated
        return {column: counts[column] for column in COLUMNS}

    @property
    def differing(self) -> int:
        """Terminal replies that say something else than their request's first one did."""
        tally = self.tally()
        return tally["duplicate"] - tally["repeated"]

    def _note(self, topic: str, payload: bytes, reply: dict[str, Any]) -> str | None:
        kind, request_id = reply["type"], str(reply["requestId"])
        row = self.rows.get(request_id)
        if row is None and kind == "accepted" and self._early.pop(request_id, None) == topic:
            self._counts["accepted"] += 1
            return None
        if row is None or topic != row.topic:
            self._counts["leaked"] += 1
            return None
        run = reply.get("run", 0)
        row.run = max(row.run, run)
        if kind == "accepted":
            row.accepted += 1
            row.worker = reply.get("worker", row.worker)
        if kind not in {"done", "error"}:
            return None
        outcome = "done" if kind == "done" else str(reply["code"])
        row.stale += run < row.run
        row.repeated += hash(payload) == row.said
        row.said = hash(payload) if row.said is None else row.said
        row.ends.append(outcome)
        row.prompt_tokens = reply["usage"]["promptTokens"] if kind == "done" else None
        self.outcomes[outcome] += 1
        if kind == "done" and row.text is not None and reply["text"] != row.text:
            self._counts["corrupt"] += 1
        elif not self._keep:
            self._counts.update(terminal=1, accepted=bool(row.accepted))
            if outcome == "done" and not row.accepted:
                self._early[request_id] = topic
            del self.rows[request_id]
        return request_id


def in_words(tally: dict[str, int]) -> str:
    """The tally as one line."""
    return ", ".join(f"{column} {tally[column]}" for column in COLUMNS)
