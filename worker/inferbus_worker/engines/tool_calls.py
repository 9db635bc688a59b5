"""The calls of one answer, put together from what an engine says of them bit by bit."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from typing import Final

from pydantic import ValidationError

from inferbus_client.contract.wire.messages import MAX_ARGUMENTS, MAX_TOOL_CALLS
from inferbus_client.contract.wire.messages import ToolCall as WireCall
from inferbus_worker.chat import CallDelta, ToolCall, publishable
from inferbus_worker.engines.base import EngineError

#: Names are the model's to invent; what no tool can be called, none is called.
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_.:/-]")
_LONGEST_NAME: Final = 128
#: A call's id is the backend's to give.
_LONGEST_ID: Final = 256


class _Call:
    __slots__ = ("arguments", "id", "name", "size", "told_id")

    def __init__(self, call_id: str, name: str, told_id: str | None) -> None:
        self.id = call_id
        self.name = name
        self.told_id = told_id
        self.arguments: list[str] = []
        self.size = 0


class ToolCalls:
    """Bounded, and numbered 0, 1, 2 … in the order in which they begin, whatever the engine's numbers are.

    Args:
        only_first: whether the requester takes one call only; the others are left out.
    """

    def __init__(self, *, only_first: bool = False) -> None:
        self._only_first = only_first
        self._numbers: dict[int, int] = {}
        self._calls: list[_Call] = []

    def __len__(self) -> int:
        return len(self._calls)

    def grow(self, deltas: Iterable[CallDelta]) -> list[CallDelta]:
        """Note what is new.

        Returns:
            The same, fit for the contract: each call's first part, and no other, has its id and name.

        Raises:
            EngineError: there are more calls than may be, one is longer, or one has no name.
        """
        return [grown for delta in deltas if (grown := self._grow(delta)) is not None]

    def whole(self) -> tuple[ToolCall, ...]:
        """All of them, in OpenAI's shape. One without arguments is called with none, `{}`.

        Raises:
            EngineError: the contract has no form for one: a reply with it could not be written, or not be read.
        """
        return tuple(_vouched(call) for call in self._calls)

    def _grow(self, delta: CallDelta) -> CallDelta | None:
        number = self._numbers.get(delta.number)
        if number is not None and self._is_another(self._calls[number], delta):
            del self._numbers[delta.number]
            number = None
        if number is None:
            if self._only_first and self._calls:
                return None
            return self._begin(delta)
        arguments = publishable(delta.arguments)
        self._add(self._calls[number], arguments)
        return CallDelta(number, None, None, arguments) if arguments else None

    @staticmethod
    def _is_another(call: _Call, delta: CallDelta) -> bool:
        """Whether another call has the number of one before it: Ollama's have all number 0.

        Another id alone does not say so: some servers make one up for every delta.
        """
        return bool(delta.name and delta.id) and delta.id != call.told_id

    def _begin(self, delta: CallDelta) -> CallDelta:
        if not delta.name:
            raise EngineError("the model called a tool without a name")
        number = len(self._calls)
        if number == MAX_TOOL_CALLS:
            raise EngineError(f"the model called more than {MAX_TOOL_CALLS} tools at once")
        taken = {call.id for call in self._calls}
        told = publishable((delta.id or "")[:_LONGEST_ID])
        arguments = publishable(delta.arguments)
        call_id = told if told and told not in taken else f"call_{uuid.uuid4().hex}"
        call = _Call(call_id, _NOT_IN_NAMES.sub("_", delta.name[:_LONGEST_NAME]), delta.id)
        self._add(call, arguments)
        self._calls.append(call)
        self._numbers[delta.number] = number
        return CallDelta(number, call.id, call.name, arguments)

    def _add(self, call: _Call, arguments: str) -> None:
        call.size += len(arguments)
        if call.size > MAX_ARGUMENTS:
            raise EngineError(f"the model called a tool with more than {MAX_ARGUMENTS} characters")
        if arguments:
            call.arguments.append(arguments)


def _vouched(call: _Call) -> ToolCall:
    function = {"name": call.name, "arguments": "".join(call.arguments) or "{}"}
    whole = {"id": call.id, "type": "function", "function": function}
    try:
        WireCall.model_validate(whole)
    except ValidationError:
        raise EngineError("the model called a tool in a way that the contract has no form for") from None
    return whole
