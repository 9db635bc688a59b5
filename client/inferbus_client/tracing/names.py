"""All names that a span of ours has, and its attributes: GenAI's are still in development, so they stand here alone."""

from __future__ import annotations

from typing import Final

#: An HTTP request at the gateway.
HTTP: Final = "http"
#: A request on the bus, as its client sees it: from its first publish to its terminal reply, all attempts.
BUS: Final = "bus"
#: The same in the worker: from its arrival to its terminal reply. A refused one has no other.
REQUEST: Final = "request"
#: From admission until a worker thread takes it; once more where it waits for another try.
QUEUE: Final = "queue"
#: In a slot, from the taking to the end.
TURN: Final = "turn"
#: One generation, from the call to its end.
ENGINE: Final = "engine"

PROJECT: Final = "inferbus.project"
VERB: Final = "inferbus.verb"
SLOT: Final = "inferbus.slot"
ATTEMPT: Final = "inferbus.attempt"
ATTEMPTS: Final = "inferbus.attempts"
#: Seconds from admission to the first token that the requester was sent.
BEGAN_AFTER: Final = "inferbus.began_after"
FAILURE: Final = "error.type"
MESSAGING: Final = "messaging.system"
OPERATION: Final = "gen_ai.operation.name"
MODEL: Final = "gen_ai.request.model"
MAX_TOKENS: Final = "gen_ai.request.max_tokens"
TEMPERATURE: Final = "gen_ai.request.temperature"
TOP_P: Final = "gen_ai.request.top_p"
ANSWERED_BY: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
METHOD: Final = "http.request.method"
ROUTE: Final = "http.route"
STATUS: Final = "http.response.status_code"
