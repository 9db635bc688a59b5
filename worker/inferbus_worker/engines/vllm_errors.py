"""What vLLM's errors mean in our terms."""

from __future__ import annotations

from typing import Any

from inferbus_worker.engines.base import ContextTooLongError, EngineDeadError, EngineError, InvalidCallError

#: By which of its parameters vLLM says that the prompt is too long.
_PROMPT_PARAMETERS = frozenset({"input_tokens", "input_text"})
#: Bad request, unprocessable entity, not implemented.
_REQUESTERS_FAULT = frozenset({400, 422, 501})
_LONGEST_REASON = 300


def translated(error: Exception, serving: Any) -> EngineError:
    """Our error for one that vLLM's chat `serving` raised, by vLLM's own mapping to HTTP status codes."""
    if serving.engine_client.errored:
        return EngineDeadError("vLLM's engine process has ended")
    parameter, value = getattr(error, "parameter", None), getattr(error, "value", None)
    # No room for a single token: vLLM computes max_tokens 0 and then refuses it.
    if parameter in _PROMPT_PARAMETERS or (parameter == "max_tokens" and value == 0):
        return ContextTooLongError(reason(error))
    return refusal(serving.create_error_response(error).error.code, reason(error))


def refusal(status: int, text: str) -> EngineError:
    """Our error for an HTTP status of vLLM's. Only what is the requester's doing is told to the requester."""
    text = " ".join(text.split())[:_LONGEST_REASON]
    return InvalidCallError(text) if status in _REQUESTERS_FAULT else EngineError(text)


def reason(error: Exception) -> str:
    """One line: without pydantic's report, and without what vLLM appends for HTTP clients."""
    if hasattr(error, "errors"):
        first = error.errors()[0]
        text = f"{first['loc'][0]}: {first['msg']}" if first["loc"] else str(first["msg"])
    else:
        # vLLM's `__str__` adds what its HTTP clients get as fields.
        text = str(error.args[0] if hasattr(error, "parameter") else error) or type(error).__name__
    return " ".join(text.removeprefix("Value error, ").split())[:_LONGEST_REASON]
