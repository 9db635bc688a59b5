"""What the client hands to its caller: the whole answer, and word that one begins anew."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pydantic.alias_generators import to_camel

from inferbus_client.contract.wire import FinishReason, Timing, Usage
from inferbus_client.contract.wire.messages import ToolCall


@dataclass(frozen=True, slots=True)
class Answer:
    """The whole answer to one request.

    Attributes:
        text: the answer's text, whole even where parts of the stream were lost.
        session_id: the conversation it belongs to.
        request_id: the id that every attempt of this request carried.
        finish_reason: `stop`; `length` where the answer was cut at its maximum number of tokens; `tool_calls`.
        usage: tokens in and out; None where no model was asked, or the worker answers in text only.
        timing: the worker's own measurements, in milliseconds since admission; None as for `usage`.
        reasoning: what a reasoning model thought, where its project shows that.
        model: the one that has answered, where the worker says so.
        tool_calls: what the model calls; it goes on when it has their results (`Client.ask(tool_results=…)`).
        lost: how many messages of the stream never arrived (QoS 0 may lose them); of those that are parts of it.
        run: how often another worker of a group began it anew.
        attempts: how often the request was started, retries included.
        first_token_s: seconds from the first send to the first delta, or to the answer where nothing streamed.
        total_s: seconds from the first send to the answer.
    """

    text: str
    session_id: str
    request_id: str
    finish_reason: FinishReason = "stop"
    usage: Usage | None = None
    timing: Timing | None = None
    reasoning: str | None = None
    model: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    lost: int = 0
    run: int = 0
    attempts: int = 1
    first_token_s: float = 0.0
    total_s: float = 0.0

    def __str__(self) -> str:
        return self.text

    def as_dict(self) -> dict[str, Any]:
        """The fields for JSON, in the contract's spelling (`sessionId`, `finishReason`, …) and units: milliseconds."""
        fields = asdict(self)
        for name in ("first_token", "total"):
            fields[f"{name}_ms"] = round(fields.pop(f"{name}_s") * 1000, 3)
        for name, part in (("usage", self.usage), ("timing", self.timing)):
            fields[name] = None if part is None else part.model_dump(by_alias=True)
        if not self.run:
            del fields["run"]
        if calls := fields.pop("tool_calls"):
            fields["tool_calls"] = [call.model_dump() for call in calls]
        return {to_camel(name): value for name, value in fields.items()}


@dataclass(frozen=True, slots=True)
class Restarted:
    """In a stream: what it has said so far is void, since another worker has taken the request over and begins anew.

    Attributes:
        run: how often that has happened to this request.
        worker: who has it now; None where that is not known.
    """

    run: int
    worker: str | None = None
