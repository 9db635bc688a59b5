"""What the worker says in its own words, in those of the contract."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from inferbus_client.contract.wire import Timing
from inferbus_client.contract.wire import Usage as WireUsage
from inferbus_worker.chat import CallDelta, Usage, publishable
from inferbus_worker.outcome import Timings


def memory(text: str, reasoning: str | None) -> int:
    """What the words take, in bytes: one, two or four a character."""
    return sys.getsizeof(text) + (sys.getsizeof(reasoning) if reasoning else 0)


def memory_of_deltas(calls: Sequence[CallDelta]) -> int:
    return sum(sys.getsizeof(call) + sys.getsizeof(call.arguments) for call in calls)


def joined(deltas: Sequence[CallDelta]) -> list[dict[str, Any]]:
    """What is new of each call, once."""
    joined: dict[int, list[CallDelta]] = {}
    for delta in deltas:
        joined.setdefault(delta.number, []).append(delta)
    return [_wire_call(parts) for parts in joined.values()]


def _wire_call(parts: Sequence[CallDelta]) -> dict[str, Any]:
    """As OpenAI streams it: who it is stands in a call's first part alone."""
    first, arguments = parts[0], publishable("".join([part.arguments for part in parts]))
    if first.name is None:
        return {"index": first.number, "function": {"arguments": arguments}}
    function = {"name": first.name, "arguments": arguments}
    return {"index": first.number, "id": first.id, "type": "function", "function": function}


def wire_usage(usage: Usage) -> WireUsage:
    return WireUsage(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens)


def wire_timing(timings: Timings) -> Timing:
    first = timings.first_token
    return Timing(
        queue_ms=_milliseconds(timings.queue),
        first_token_ms=None if first is None else _milliseconds(first),
        total_ms=_milliseconds(timings.total),
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
