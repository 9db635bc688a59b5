"""Why a request gets no answer, as HTTP has it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from inferbus_client.contract.wire import FAILURES, Code, Failure
from inferbus_client.contract.wire.failures import FailureKind
from inferbus_client.errors import (
    AnswerChangedError,
    BrokerError,
    InferbusError,
    MessageRefusedError,
    MisuseError,
    RequestFailedError,
    RequestTimeoutError,
)
from inferbus_client.shapes.openai_answer import where

#: Seconds after which to ask again, where nobody knows better.
_SOON: Final = 1.0
#: What an error that is no failure of a request's own comes to.
_OTHERS: Final[tuple[tuple[type[InferbusError], Code, str], ...]] = (
    (MessageRefusedError, "message_too_large", "The broker takes no message of this size."),
    (BrokerError, "engine_unavailable", "The gateway has no connection to the broker."),
    (RequestTimeoutError, "engine_unavailable", "The worker keeps silent: {error}."),
    (AnswerChangedError, "engine_unavailable", "The worker has gone, and {error}."),
    (MisuseError, "invalid_request", "{error}."),
)
#: What the sentences of the contract begin with for those who get text: over HTTP it is plain that it is an error.
_TEXT_ONLY: Final = "Error: "
#: A code may be HTTP's, too.
_KINDS: Final[Mapping[str, FailureKind]] = {str(code): kind for code, kind in FAILURES.items()}


def identified(request_id: str) -> Mapping[str, str]:
    """What tells a request's id: OpenAI's SDK reads the one, Anthropic's the other."""
    return {"x-request-id": request_id, "request-id": request_id}


class KeyLimitError(InferbusError):
    """A key of the gateway's has had as much as it may.

    Attributes:
        retry_after: seconds to wait.
    """

    def __init__(self, reason: str, retry_after: float) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class RefusedError(InferbusError):
    """A request that gets no answer.

    Attributes:
        status: of HTTP.
        code: one of the contract's failure codes, or of HTTP's own faults.
        retryable: whether the same request may succeed later.
        retry_after: seconds until then.
        param: what in the request is wrong, where it is that.
    """

    def __init__(
        self, status: int, code: str, message: str, *, retry_after: float | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retryable = code in _KINDS and _KINDS[code].retryable
        self.retry_after = (retry_after or _SOON) if self.retryable else None
        self.param = param

    @classmethod
    def of(cls, error: InferbusError, spelled: Callable[[str], str]) -> RefusedError:
        """What an error of the client's comes to; it is raised again where it is none of a request.

        Args:
            error: the client's.
            spelled: what names the wire's keys as the requester does.
        """
        if isinstance(error, RefusedError):
            return error
        if isinstance(error, RequestFailedError):
            failure = error.failure
            detail = spelled(failure.detail)
            message = detail if failure.code == "invalid_request" and detail else Failure(failure.code, detail).message
            message = message.removeprefix(_TEXT_ONLY)
            return cls(error.status, error.code, message, retry_after=error.retry_after, param=where(detail))
        for kind, code, message in _OTHERS:
            if isinstance(error, kind):
                is_late = isinstance(error, RequestTimeoutError) and error.what == "answer"
                return cls.failed("deadline_exceeded" if is_late else code, message.format(error=error))
        raise error

    @classmethod
    def failed(cls, code: Code, message: str, *, retry_after: float | None = None) -> RefusedError:
        return cls(FAILURES[code].status, code, message, retry_after=retry_after)

    def headers(self, request_id: str) -> Mapping[str, str]:
        """What SDKs go by when they decide on a retry, and why it was refused."""
        headers = {
            **identified(request_id),
            "x-inferbus-reason": self.code,
            "x-should-retry": "true" if self.retryable else "false",
        }
        if self.retry_after is not None:
            headers["retry-after"] = str(max(math.ceil(self.retry_after), 1))
            headers["retry-after-ms"] = str(max(math.ceil(self.retry_after * 1000), 1))
        return headers
