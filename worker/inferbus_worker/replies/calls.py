"""The calls in what an answer has grown by, as deltas tell them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from inferbus_worker.chat import CallDelta, publishable


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
