"""What a caller asks for, as the messages that travel: a request, a reset, a new session."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from inferbus_client.contract import topics
from inferbus_client.contract.trace import TraceContext
from inferbus_client.contract.wire import Failure, InvalidPayloadError, decode_request
from inferbus_client.errors import InvalidRequestError

#: What is asked: text, or OpenAI content parts.
Content = str | Sequence[Mapping[str, Any]]
#: A whole conversation, as OpenAI's chat messages.
Messages = Sequence[Mapping[str, Any]]

_FIELDS: Final = {
    "message": "message",
    "messages": "messages",
    "temperature": "temperature",
    "top_p": "topP",
    "max_tokens": "maxTokens",
    "system_prompt": "systemPrompt",
    "client_id": "clientId",
    "model": "model",
    "params": "params",
    "tools": "tools",
    "tool_choice": "toolChoice",
    "parallel_tool_calls": "parallelToolCalls",
    "tool_results": "toolResults",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One thing asked of the worker. Every attempt publishes the same fields, with what is left of the deadline.

    Attributes:
        topic: where it is published.
        reply_topic: where its replies are heard, and nobody else's.
        request_id: the same for every attempt, so that the worker never answers it twice.
        session: the conversation; None where a new one is asked for.
        cancel_topic: where it is cancelled; None where that makes no sense.
        fields: what is published.
        line: the session whose requests take turns with it; None where it waits for no other.
        trace: where it stands in a trace; None where it is in none.
    """

    topic: str
    reply_topic: str
    request_id: str
    session: str | None
    cancel_topic: str | None
    fields: Mapping[str, Any]
    line: str | None = None
    trace: TraceContext | None = None

    def payload(self, deadline_ms: int) -> bytes:
        return json.dumps({**self.fields, "deadlineMs": max(deadline_ms, 1)}).encode()


class _RequestIds:
    """Ids that no other client makes, from any thread. Counted, since every random one would cost a system call."""

    def __init__(self) -> None:
        self._prefix = uuid.uuid4().hex[:16]
        self._numbers = itertools.count(1)

    def next(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Makes calls for one client in one scope (see `topics`).

    A client listens below the session's reply topic at a level of its own, so that two clients of one session do
    not hear each other.
    """

    scope: str
    client_id: str
    _request_ids: _RequestIds = field(default_factory=_RequestIds, repr=False, compare=False)

    def request(
        self,
        message: Content | None,
        session: str,
        *,
        stream: bool,
        messages: Messages | None = None,
        request_id: str | None = None,
        **options: Any,
    ) -> Call:
        """A request for an answer; `options` by their Python names (`temperature`, `max_tokens`, …).

        Args:
            message: what is asked in the session.
            session: the conversation; with `messages`, no more than where the replies are heard.
            stream: whether deltas are wanted.
            messages: a whole conversation instead of `message`. The worker keeps nothing of it.
            request_id: the caller's own.
            **options: see above.

        Raises:
            InvalidRequestError: the worker would refuse it.
        """
        options = {"message": message, "messages": messages, **options}
        wanted = {_FIELDS[name]: value for name, value in options.items() if value is not None}
        fields = {**wanted, **({"stream": True} if stream else {})}
        call = self._in_session(session, request_id, fields, line=session if messages is None else None)
        _check(call)
        return call

    def reset(self, session: str) -> Call:
        """A request to forget the conversation."""
        return self._in_session(session, None, {"reset": True}, line=session)

    def new_session(self) -> Call:
        """A request for a session id."""
        topic = f"{topics.session_response(self.scope)}/{self.client_id}"
        request_id = self._request_ids.next()
        return Call(
            topic=topics.session_request(self.scope),
            reply_topic=topic,
            request_id=request_id,
            session=None,
            cancel_topic=None,
            fields=self._envelope(topic, request_id),
        )

    def every_reply(self) -> str:
        """The filter that matches this client's replies in every session."""
        return self.reply_topic("+")

    def reply_topic(self, session: str) -> str:
        return f"{topics.assistant_response(self.scope, session)}/{self.client_id}"

    def cancel_topic(self, session: str) -> str:
        """Where a session's requests are cancelled.

        Raises:
            InvalidRequestError: there can be no such session.
        """
        if not topics.is_session(session):
            raise _invalid("sessionId: must match [A-Za-z0-9_.:-]{1,128}.")
        return topics.cancel(self.scope, session)

    def _in_session(self, session: str, request_id: str | None, fields: Mapping[str, Any], *, line: str | None) -> Call:
        cancel_topic = self.cancel_topic(session)
        reply_topic = self.reply_topic(session)
        request_id = request_id or self._request_ids.next()
        return Call(
            topic=topics.user_input(self.scope, session),
            reply_topic=reply_topic,
            request_id=request_id,
            session=session,
            cancel_topic=cancel_topic,
            fields={"sessionId": session, **self._envelope(reply_topic, request_id), **fields},
            line=line,
        )

    def _envelope(self, reply_topic: str, request_id: str) -> dict[str, Any]:
        return {"requestId": request_id, "clientId": self.client_id, "replyTopic": reply_topic, "reply": "json"}


def cancel_payload(request_id: str | None) -> bytes:
    """What cancels one request; without an id, whatever the session has queued or running."""
    return b"" if request_id is None else json.dumps({"requestId": request_id}).encode()


def _check(call: Call) -> None:
    """Refuse here what the worker would refuse, with the same words and without the round trip."""
    try:
        decode_request(call.payload(deadline_ms=1))
    except InvalidPayloadError as error:
        raise InvalidRequestError(error.failure) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise _invalid(f"It cannot be written as JSON: {error}.") from None


def _invalid(detail: str) -> InvalidRequestError:
    return InvalidRequestError(Failure("invalid_request", detail))
