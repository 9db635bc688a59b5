"""The two shapes that are spoken at the door, each with the same few things to say."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

from inferbus_client.contract.wire import Delta
from inferbus_client.exchange.answer import Answer
from inferbus_client.exchange.call import Messages
from inferbus_client.exchange.options import AskOptions
from inferbus_client.gateway.errors import RefusedError
from inferbus_client.shapes import anthropic_answer, anthropic_request, openai_answer, openai_request


class Pieces(Protocol):
    """The server-sent events of one answer."""

    def begin(self) -> bytes: ...

    def delta(self, delta: Delta) -> bytes: ...

    def end(self, answer: Answer) -> bytes: ...

    def error(self, refused: RefusedError) -> bytes:
        """That it has failed in the middle."""


class Asked(NamedTuple):
    """What a body asks for.

    Attributes:
        messages: the conversation.
        options: of `ask`, but for the model.
        model: how it calls what is to answer.
        stream: whether it wants the answer as it comes.
        with_usage: whether a stream tells of tokens at its end.
    """

    messages: Messages
    options: AskOptions
    model: object
    stream: bool = False
    with_usage: bool = False


class Shape(Protocol):
    """How a request is read, and how it is answered."""

    def read(self, body: object) -> Asked:
        """What a body asks for.

        Raises:
            InvalidRequestError: what we cannot do, by its name.
        """

    def spelled(self, detail: str) -> str:
        """What is wrong with a request, by the shape's own names."""

    def whole(self, answer: Answer, model: str) -> dict[str, Any]: ...

    def pieces(self, request_id: str, asked: Asked, model: str) -> Pieces: ...

    def error(self, refused: RefusedError, request_id: str) -> dict[str, Any]: ...


class OpenAI:
    """https://platform.openai.com/docs/api-reference/chat."""

    def read(self, body: object) -> Asked:
        fields = dict(body) if isinstance(body, dict) else body
        stream, with_usage = False, False
        if isinstance(fields, dict):
            stream = _flag(fields, "stream")
            if (more := fields.pop("stream_options", None)) is not None:
                with_usage = _stream_options(more, stream=stream)
        messages, options = openai_request.asked_for(fields)
        return Asked(messages, options, options.pop("model", None), stream, with_usage)

    def spelled(self, detail: str) -> str:
        return openai_request.spelled(detail)

    def whole(self, answer: Answer, model: str) -> dict[str, Any]:
        return openai_answer.completion(answer, model)

    def pieces(self, request_id: str, asked: Asked, model: str) -> Pieces:
        return _OpenAIPieces(request_id, model, with_usage=asked.with_usage)

    def error(self, refused: RefusedError, request_id: str) -> dict[str, Any]:  # noqa: ARG002 - its header has it
        return openai_answer.error(str(refused), refused.code, refused.status, refused.param)


class _OpenAIPieces(openai_answer.Chunks):
    def error(self, refused: RefusedError) -> bytes:
        return openai_answer.event(openai_answer.error(str(refused), refused.code, refused.status, refused.param))


class Anthropic:
    """https://platform.claude.com/docs/en/api/messages/create."""

    def read(self, body: object) -> Asked:
        fields = dict(body) if isinstance(body, dict) else body
        stream = isinstance(fields, dict) and _flag(fields, "stream")
        messages, options = anthropic_request.asked_for(fields)
        return Asked(messages, options, options.pop("model", None), stream)

    def spelled(self, detail: str) -> str:
        return anthropic_request.spelled(detail)

    def whole(self, answer: Answer, model: str) -> dict[str, Any]:
        return anthropic_answer.message(answer, model)

    def pieces(self, request_id: str, asked: Asked, model: str) -> Pieces:  # noqa: ARG002 - its streams are all alike
        return _AnthropicPieces(request_id, model)

    def error(self, refused: RefusedError, request_id: str) -> dict[str, Any]:
        return anthropic_answer.error(str(refused), refused.status, request_id)


class _AnthropicPieces:
    def __init__(self, request_id: str, model: str) -> None:
        self._request_id = request_id
        self._events = anthropic_answer.Events(request_id, model)

    def begin(self) -> bytes:
        return anthropic_answer.server_sent(self._events.begin())

    def delta(self, delta: Delta) -> bytes:
        return anthropic_answer.server_sent(self._events.delta(delta))

    def end(self, answer: Answer) -> bytes:
        return anthropic_answer.server_sent(self._events.end(answer))

    def error(self, refused: RefusedError) -> bytes:
        body = anthropic_answer.error(str(refused), refused.status, self._request_id)
        return anthropic_answer.server_sent([("error", body)])


OPENAI: Final[Shape] = OpenAI()
ANTHROPIC: Final[Shape] = Anthropic()


def _flag(fields: dict[str, Any], name: str) -> bool:
    value = fields.pop(name, None)
    if value is not None and not isinstance(value, bool):
        raise openai_request.invalid(f"{name}: must be true or false.")
    return bool(value)


def _stream_options(more: object, *, stream: bool) -> bool:
    if not stream:
        raise openai_request.invalid("stream_options: is for streams alone.")
    if not isinstance(more, dict):
        raise openai_request.invalid("stream_options: must be an object.")
    for name, value in more.items():
        if name != "include_usage" and (name != "include_obfuscation" or value is not False):
            raise openai_request.invalid(f"stream_options.{name}: is not supported.")
    return _flag(dict(more), "include_usage")
