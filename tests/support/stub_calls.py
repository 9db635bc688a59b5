"""How each kind of server says in a stream that its model calls tools: for `support.stub_shapes`.

Each stream here is the deltas of one answer, without what every event of it has besides.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

#: Those that say a call in one piece; the others begin with its name, and say its arguments bit by bit.
_IN_ONE_PIECE: Final = frozenset({"ollama", "mlx", "tgi"})


class Called(NamedTuple):
    """A call that a model makes: the tool's name, and JSON."""

    name: str
    arguments: str


def openai(backend: str, calls: Sequence[Called]) -> Iterator[Mapping[str, Any]]:
    """The deltas of a choice, by OpenAI's documents. Ollama numbers every call 0, mlx-lm none of them."""
    for number, call in enumerate(calls):
        index = {} if backend == "mlx" else {"index": 0 if backend == "ollama" else number}
        said = call.arguments if backend in _IN_ONE_PIECE else ""
        function = {"name": call.name, "arguments": said}
        yield {"tool_calls": [{**index, "id": f"call_{number}", "type": "function", "function": function}]}
        for part in () if said else _parts(call.arguments):
            yield {"tool_calls": [{**index, "function": {"arguments": part}}]}


def anthropic(calls: Sequence[Called]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Events of blocks that follow the text's, by their types."""
    for number, call in enumerate(calls, 1):
        block = {"type": "tool_use", "id": f"toolu_{number - 1}", "name": call.name, "input": {}}
        yield "content_block_start", {"index": number, "content_block": block}
        for part in _parts(call.arguments):
            yield "content_block_delta", {"index": number, "delta": {"type": "input_json_delta", "partial_json": part}}
        yield "content_block_stop", {"index": number}


def ollama(calls: Sequence[Called]) -> Iterator[Mapping[str, Any]]:
    """Messages of its own endpoint, where arguments are an object, and calls have no ids."""
    for call in calls:
        function = {"name": call.name, "arguments": json.loads(call.arguments)}
        yield {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}


def _parts(text: str) -> list[str]:
    half = len(text) // 2
    return [text[:half], text[half:]]
