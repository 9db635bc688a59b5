"""An exchange with a span around it, from its first publish to its terminal reply."""

from __future__ import annotations

from dataclasses import replace

from inferbus_client.exchange.exchange import Exchange
from inferbus_client.exchange.steps import Steps
from inferbus_client.tracing import names
from inferbus_client.tracing.spans import Tracer


def traced(tracer: Tracer, exchange: Exchange) -> Steps:
    """Run the exchange's steps. Its messages carry the span, and whoever answers them makes spans below it.

    Raises:
        RequestFailedError, RequestTimeoutError, BrokerError: as `Exchange.steps` says.
    """
    call = exchange.call
    project, _, _ = call.topic.partition("/")
    with tracer.begin(names.BUS, "client", call.trace, {names.MESSAGING: "mqtt", names.PROJECT: project}) as span:
        exchange.call = replace(call, trace=span.context)
        yield from exchange.steps()
        answer = exchange.result()
        usage = answer.usage
        span.note(
            {
                names.ATTEMPTS: answer.attempts,
                names.ANSWERED_BY: answer.model,
                names.FINISH_REASONS: [answer.finish_reason],
                names.INPUT_TOKENS: None if usage is None else usage.prompt_tokens,
                names.OUTPUT_TOKENS: None if usage is None else usage.completion_tokens,
            }
        )
