"""What goes out: `accepted`, `delta`, and exactly one of `done` and `error` per request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import to_json

from inferbus_client.contract.topics import MAX_WORKER
from inferbus_client.contract.wire.failures import Code, Failure
from inferbus_client.contract.wire.messages import ToolCall
from inferbus_client.units import Int64

VERSION: Final = 1

FinishReason = Literal["stop", "length", "tool_calls"]


def _is_none(value: object) -> bool:
    return value is None


def _is_first(run: int) -> bool:
    return run == 0


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Usage(_Model):
    """Tokens in and out, by the model's own tokenizer."""

    prompt_tokens: Int64
    completion_tokens: Int64


class Timing(_Model):
    """Where the time went, in milliseconds since admission. `first_token_ms` is known only of streamed answers."""

    queue_ms: float
    first_token_ms: float | None = None
    total_ms: float


class Reply(_Model):
    """What every JSON reply has. `seq` counts 0, 1, 2 … per run of a request, so that a gap shows a loss.

    `run` is higher where another worker of a group began the request anew: what lower runs said does not count.
    """

    terminal: ClassVar[bool] = False

    v: Literal[1] = VERSION
    request_id: str
    session_id: str
    seq: Int64
    run: Annotated[Int64, Field(ge=0, exclude_if=_is_first)] = 0

    def encode(self) -> bytes:
        return self.model_dump_json(by_alias=True).encode()


class Accepted(Reply):
    """Admitted and queued; `eta_ms` is the wait to expect before the first token, None while unknown.

    `worker` says who has it, in a group.
    """

    type: Literal["accepted"] = "accepted"
    queue_position: Int64
    eta_ms: Int64 | None = None
    worker: Annotated[str | None, Field(max_length=MAX_WORKER, exclude_if=_is_none)] = None


class CalledDelta(BaseModel):
    """What is new of which function a model calls: its name, whole and at first, then what it is called with."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Annotated[str | None, Field(exclude_if=_is_none)] = None
    arguments: str = ""


class CallDelta(BaseModel):
    """What is new of one call of a tool; `id` and the function's name come with the first of each."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    index: Int64
    id: Annotated[str | None, Field(exclude_if=_is_none)] = None
    type: Annotated[Literal["function"] | None, Field(exclude_if=_is_none)] = None
    function: CalledDelta


class Delta(Reply):
    """What is new since the last delta."""

    type: Literal["delta"] = "delta"
    text: str
    reasoning: Annotated[str | None, Field(exclude_if=_is_none)] = None
    tool_calls: Annotated[list[CallDelta] | None, Field(exclude_if=_is_none)] = None


class Done(Reply):
    """The whole answer. `usage` and `timing` are None where no model was asked (a reset, a new session).

    `model` is the one that has answered. With `tool_calls` the finish reason is
    `tool_calls`, and the model goes on when it has their results.
    """

    terminal: ClassVar[bool] = True

    type: Literal["done"] = "done"
    text: str
    finish_reason: FinishReason = "stop"
    usage: Usage | None = None
    timing: Timing | None = None
    reasoning: Annotated[str | None, Field(exclude_if=_is_none)] = None
    model: Annotated[str | None, Field(exclude_if=_is_none)] = None
    tool_calls: Annotated[list[ToolCall] | None, Field(exclude_if=_is_none)] = None


class ReplyWriter:
    """Writes the replies of one request as their models' `encode` does, at a tenth of the cost: it makes no models.

    Nothing is checked: what it is given is the worker's own, or was checked where it came in.
    """

    __slots__ = ("_after_seq", "_before_seq")

    def __init__(self, request_id: str, session_id: str, run: int = 0) -> None:
        ids = to_json({"v": VERSION, "requestId": request_id, "sessionId": session_id})
        self._before_seq = ids.removesuffix(b"}") + b',"seq":'
        self._after_seq = b"," if _is_first(run) else b',"run":%d,' % run

    def accepted(self, seq: int, queue_position: int, eta_ms: int | None, worker: str | None = None) -> bytes:
        """See `Accepted`."""
        fields: dict[str, Any] = {"type": "accepted", "queuePosition": queue_position, "etaMs": eta_ms}
        if worker is not None:
            fields["worker"] = worker
        return self._reply(seq, fields)

    def delta(
        self,
        seq: int,
        text: str,
        reasoning: str | None = None,
        tool_calls: Sequence[Mapping[str, Any]] | None = None,
    ) -> bytes:
        """See `Delta`."""
        fields: dict[str, Any] = {"type": "delta", "text": text}
        if reasoning is not None:
            fields["reasoning"] = reasoning
        if tool_calls is not None:
            fields["toolCalls"] = tool_calls
        return self._reply(seq, fields)

    def done(
        self,
        seq: int,
        text: str,
        finish_reason: FinishReason,
        *,
        usage: tuple[int, int] | None = None,
        timing: tuple[float, float | None, float] | None = None,
        reasoning: str | None = None,
        model: str | None = None,
        tool_calls: Sequence[Mapping[str, Any]] | None = None,
    ) -> bytes:
        """See `Done`, and `Usage` and `Timing`, whose fields come in their order."""
        fields: dict[str, Any] = {"type": "done", "text": text, "finishReason": finish_reason}
        fields["usage"] = None if usage is None else {"promptTokens": usage[0], "completionTokens": usage[1]}
        fields["timing"] = (
            None if timing is None else {"queueMs": timing[0], "firstTokenMs": timing[1], "totalMs": timing[2]}
        )
        if reasoning is not None:
            fields["reasoning"] = reasoning
        if model is not None:
            fields["model"] = model
        if tool_calls is not None:
            fields["toolCalls"] = tool_calls
        return self._reply(seq, fields)

    def _reply(self, seq: int, fields: Mapping[str, Any]) -> bytes:
        return self._before_seq + b"%d" % seq + self._after_seq + to_json(fields)[1:]


class ErrorReply(Reply):
    """The request ended without an answer."""

    terminal: ClassVar[bool] = True

    type: Literal["error"] = "error"
    code: Code
    status: Int64
    message: str
    retryable: bool
    retry_after_ms: Int64 | None = None

    @classmethod
    def of(cls, failure: Failure, *, request_id: str, session_id: str, seq: int, run: int = 0) -> ErrorReply:
        return cls(
            request_id=request_id,
            session_id=session_id,
            seq=seq,
            run=run,
            code=failure.code,
            status=failure.status,
            message=failure.message,
            retryable=failure.retryable,
            retry_after_ms=failure.retry_after_ms,
        )


AnyReply = Annotated[Accepted | Delta | Done | ErrorReply, Field(discriminator="type")]

_ADAPTER: TypeAdapter[Accepted | Delta | Done | ErrorReply] = TypeAdapter(AnyReply)


class InvalidReplyError(ValueError):
    """Bytes on a reply topic that are not a JSON reply of this version."""


def decode_reply(payload: bytes) -> Accepted | Delta | Done | ErrorReply:
    """A JSON reply.

    Raises:
        InvalidReplyError: the payload is not one (a text reply, another version, another program's message).
    """
    try:
        return _ADAPTER.validate_json(payload)
    except ValidationError:
        raise InvalidReplyError("not a JSON reply of version 1") from None
