"""What vLLM's errors mean in our terms."""

from __future__ import annotations

import re
import signal
from typing import Any

from inferbus_worker.engines.base import (
    ContextTooLongError,
    EngineDeadError,
    EngineError,
    EngineStartError,
    InvalidCallError,
)

#: By which of its parameters vLLM says that the prompt is too long.
_PROMPT_PARAMETERS = frozenset({"input_tokens", "input_text"})
#: Bad request, unprocessable entity, not implemented.
_REQUESTERS_FAULT = frozenset({400, 422, 501})
_LONGEST_REASON = 300
#: For the operator, whom vLLM tells at length what to change.
_LONGEST_CAUSE = 600
#: How vLLM says which of its processes did not come up: by exit status, a signal's being negative.
_CORE_FAILED = re.compile(r"Failed core proc\(s\): \{'[^']*': -(\d+)")


def translated(error: Exception, serving: Any) -> EngineError:
    """Our error for one that vLLM's chat `serving` raised, by vLLM's own mapping to HTTP status codes."""
    if serving.engine_client.errored:
        return EngineDeadError("vLLM's engine process has ended")
    parameter, value = getattr(error, "parameter", None), getattr(error, "value", None)
    # No room for a single token: vLLM computes max_tokens 0 and then refuses it.
    if parameter in _PROMPT_PARAMETERS or (parameter == "max_tokens" and value == 0):
        return ContextTooLongError(reason(error))
    return refusal(serving.create_error_response(error).error.code, reason(error), type(error).__name__)


def refusal(status: int, text: str, kind: str) -> EngineError:
    """Our error for an HTTP status of vLLM's.

    What is the requester's doing is told to the requester. Of the rest the log gets the kind alone: the text may quote
    the request.
    """
    if status in _REQUESTERS_FAULT:
        return InvalidCallError(" ".join(text.split())[:_LONGEST_REASON])
    return EngineError(f"{kind} (status {status})")


def reason(error: Exception) -> str:
    """One line: without pydantic's report, and without what vLLM appends for HTTP clients."""
    if hasattr(error, "errors"):
        first = error.errors()[0]
        text = f"{first['loc'][0]}: {first['msg']}" if first["loc"] else str(first["msg"])
    else:
        # vLLM's `__str__` adds what its HTTP clients get as fields.
        text = str(error.args[0] if hasattr(error, "parameter") else error) or type(error).__name__
    return " ".join(text.removeprefix("Value error, ").split())[:_LONGEST_REASON]


def start_failure(model: str, error: Exception, cause: str | None) -> str:
    """Why the engine did not come up, in a sentence.

    Args:
        model: as the operator named it.
        error: what vLLM raised in this process.
        cause: what a process of the engine said of its own failure.
    """
    if isinstance(error, EngineStartError):
        return str(error)
    text = reason(error)
    killed = _CORE_FAILED.search(text)
    if cause is not None:
        text = cause[:_LONGEST_CAUSE]
    elif killed is not None:
        text = f"a process of the engine was ended by {_signal_name(int(killed[1]))}"
    return f"vLLM could not start {model}: {text}"


def _signal_name(number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"{name}, as the system does when memory runs out" if name == "SIGKILL" else name
