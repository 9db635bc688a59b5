"""The failures table of the contract: every way a request can end without an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Code = Literal[
    "invalid_request",
    "context_too_long",
    "session_busy",
    "message_too_large",
    "rate_limited",
    "cancelled",
    "engine_error",
    "overloaded",
    "engine_unavailable",
    "shutting_down",
    "deadline_exceeded",
]


@dataclass(frozen=True, slots=True)
class FailureKind:
    """One row of the failures table. Clients match on `sentence`: its words do not change."""

    status: int
    retryable: bool
    sentence: str


FAILURES: Final[Mapping[Code, FailureKind]] = {
    "invalid_request": FailureKind(400, False, "Error: Invalid request."),
    "context_too_long": FailureKind(400, False, "Error: The message does not fit the model's context."),
    "session_busy": FailureKind(409, True, "Please wait, your previous message is still being processed..."),
    "message_too_large": FailureKind(413, False, "Error: Message too large."),
    "rate_limited": FailureKind(429, True, "Error: Rate limit exceeded. Please slow down your requests."),
    "cancelled": FailureKind(499, False, "Error: Request cancelled."),
    "engine_error": FailureKind(500, False, "Error: The model failed to answer."),
    "overloaded": FailureKind(503, True, "Server is overloaded. Please try again in a moment."),
    "engine_unavailable": FailureKind(503, True, "Error: The model is not available. Please try again later."),
    "shutting_down": FailureKind(503, True, "Error: The server is shutting down. Please try again in a moment."),
    "deadline_exceeded": FailureKind(504, True, "Error: Deadline exceeded."),
}

_BY_SENTENCE: Final[Mapping[str, Code]] = {kind.sentence: code for code, kind in FAILURES.items()}


@dataclass(frozen=True, slots=True)
class Failure:
    """One way a request ended without an answer.

    Attributes:
        code: which row of the table.
        detail: what is wrong with this request, for `invalid_request`, or which deadline; one sentence, no insides.
        retry_after_ms: milliseconds until a retry makes sense, where that is known.
    """

    code: Code
    detail: str = ""
    retry_after_ms: int | None = None

    @property
    def status(self) -> int:
        return FAILURES[self.code].status

    @property
    def retryable(self) -> bool:
        return FAILURES[self.code].retryable

    @property
    def sentence(self) -> str:
        """The text half's reply. Only an invalid request adds to the table's words."""
        sentence = FAILURES[self.code].sentence
        return f"{sentence} {self.detail}" if self.code == "invalid_request" and self.detail else sentence

    @property
    def message(self) -> str:
        """The JSON half's message: the sentence, and the detail wherever there is one."""
        sentence = FAILURES[self.code].sentence
        return f"{sentence} {self.detail}" if self.detail else sentence

    @staticmethod
    def from_sentence(text: str) -> Failure | None:
        """The failure that a text reply stands for; None where the text is an answer."""
        code = _BY_SENTENCE.get(text)
        if code is not None:
            return Failure(code)
        prefix = FAILURES["invalid_request"].sentence + " "
        return Failure("invalid_request", text.removeprefix(prefix)) if text.startswith(prefix) else None
