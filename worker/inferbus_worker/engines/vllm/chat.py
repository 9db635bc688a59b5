"""One `ChatCall` through vLLM's own OpenAI chat serving, in this process and without HTTP.

Templates, multi-modal input, structured output and reasoning parsers stay vLLM's. One thing differs from what its HTTP
server does: a streamed answer arrives as `Chunk`s, not as server-sent events to be parsed again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any, Final

from inferbus_worker.chat import CallDelta, FinishReason, ToolUse, Usage
from inferbus_worker.engines.base import ChatCall, EngineError, InvalidCallError
from inferbus_worker.engines.call_checks import check_messages, checked_parameters
from inferbus_worker.engines.loop_generation import Chunk
from inferbus_worker.engines.vllm import rendering
from inferbus_worker.engines.vllm.errors import refusal, translated
from inferbus_worker.engines.vllm.forms import gave_up, in_form, response_format
from inferbus_worker.seldom import Seldom

log = logging.getLogger("inferbus.vllm")

#: The least temperature that is not greedy; vLLM raises a lower one to it, and warns each time.
_LEAST_TEMPERATURE = 0.01
_NO_TOOLS: Final = "This model takes no tools."
#: Chat templates disagree on the name of the switch; one they do not know is dropped by vLLM.
_NO_THINKING = {"enable_thinking": False, "thinking": False}


class ChatServing:
    """vLLM's chat serving object, made to answer `ChatCall`s. Lives on the engine's event loop."""

    def __init__(self, serving: Any) -> None:
        self._serving = serving
        # The one method of vLLM's that we replace: it would write server-sent events.
        serving.chat_completion_stream_generator = self._stream
        self._seldom = Seldom(log)
        parsers = serving.parser_cls
        self._thinks = parsers is not None and parsers.reasoning_parser_cls is not None
        observed = serving.engine_client.vllm_config.observability_config
        self._traces = observed.otlp_traces_endpoint is not None

    @property
    def takes_tools(self) -> bool:
        """Whether vLLM has been told how the model writes its calls (`--tool-call-parser`)."""
        parsers = self._serving.parser_cls
        return parsers is not None and parsers.tool_parser_cls is not None

    async def answer(self, call: ChatCall) -> AsyncGenerator[Chunk, None]:
        """Yield the answer's chunks, the last with finish reason and usage.

        Raises:
            EngineError: one of the tree in `base`.
        """
        try:
            async with contextlib.aclosing(self._chunks(call)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except EngineError:
            raise
        except Exception as error:
            raise translated(error, self._serving) from error

    async def _chunks(self, call: ChatCall) -> AsyncGenerator[Chunk, None]:
        rendering.begin(call)
        response = await self._serving.create_chat_completion(self._request(call), self._carrier(call))
        if hasattr(response, "error"):
            _raise_if_cancelled()
            raise refusal(response.error.code, response.error.message, response.error.type)
        if not _streams(call):
            yield _without_hidden(_whole(response), call)
            return
        async with contextlib.aclosing(response) as deltas:
            is_first = True
            async for chunk in (
                in_form(deltas, may_be_stopped="stop" in call.sampling.extra) if call.has_form else deltas
            ):
                visible = _without_hidden(chunk, call)
                # The first one tells that there is an answer, also while all of it is hidden.
                if is_first or visible != Chunk():
                    yield visible
                is_first = False

    def _request(self, call: ChatCall) -> Any:
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest  # noqa: PLC0415

        config = self._serving.model_config
        check_messages(call.messages, images=config.is_multimodal_model)
        temperature = call.sampling.temperature
        extra = checked_parameters(call.sampling.extra)
        if "response_format" in extra:
            forms = self._serving.engine_client.vllm_config.structured_outputs_config
            extra["response_format"] = response_format(extra["response_format"], forms.backend)
        if call.tools is not None:
            if not self.takes_tools:
                self._seldom.warning(
                    "a request with tools was refused: serve the model with --enable-auto-tool-choice and the "
                    "--tool-call-parser that reads its calls"
                )
                raise InvalidCallError(_NO_TOOLS)
            extra["tools"], extra["tool_choice"] = list(call.tools.tools), _choice(call.tools)
            extra["parallel_tool_calls"] = call.tools.parallel is not False
        return ChatCompletionRequest(
            messages=[dict(message) for message in call.messages],
            temperature=max(temperature, _LEAST_TEMPERATURE) if temperature > 0 else temperature,
            top_p=call.sampling.top_p,
            # vLLM clamps it to what the prompt leaves, but refuses what no prompt could leave.
            max_completion_tokens=min(call.sampling.max_tokens, config.max_model_len),
            stream=_streams(call),
            cache_salt=call.cache_salt,
            chat_template_kwargs=dict(_NO_THINKING) if call.thinking == "off" else None,
            request_id=uuid.uuid4().hex,
            **extra,
        )

    def _carrier(self, call: ChatCall) -> Any:
        """The HTTP request from whose headers vLLM takes where a call stands in a trace.

        None where that is nowhere, or vLLM makes no spans (`--otlp-traces-endpoint`): then it would only complain.
        """
        if call.trace is None or not self._traces:
            return None
        from starlette.requests import Request  # noqa: PLC0415

        return Request(
            {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in call.trace.pairs]}
        )

    async def _stream(
        self,
        request: Any,
        result_generator: AsyncIterator[Any],
        request_id: str,  # noqa: ARG002
        model_name: str,  # noqa: ARG002
        conversation: Any,  # noqa: ARG002
        tokenizer: Any,
        request_metadata: Any,  # noqa: ARG002
        chat_template_kwargs: dict[str, Any] | None = None,
        mm_token_counts: Any = None,  # noqa: ARG002
    ) -> AsyncGenerator[Chunk, None]:
        """Stands in for vLLM's writer of server-sent events; same arguments, one chunk per engine output."""
        serving = self._serving
        parser = None
        # One that knows tools alone would only cost, where there are none.
        if serving.parser_cls is not None and (self._thinks or request.tools):
            parser = serving._make_parser(request, tokenizer, chat_template_kwargs)  # noqa: SLF001
        completion_tokens = 0
        async for result in result_generator:
            output = result.outputs[0]
            if output.finish_reason == "error" and (request.response_format or request.structured_outputs):
                raise gave_up("tools" if request.tools else "params.response_format")
            completion_tokens += len(output.token_ids)
            text, reasoning, calls = _split(parser, request, result, output)
            if output.finish_reason is None:
                yield Chunk(text, reasoning, calls=calls)
            else:
                usage = Usage(len(result.prompt_token_ids), completion_tokens)
                yield Chunk(text, reasoning, finish_reason(output.finish_reason), usage, calls)


def _choice(use: ToolUse) -> Any:
    """As vLLM is told. To require the only tool is to name it, and a far smaller grammar."""
    if use.choice == "required" and len(use.tools) == 1:
        return {"type": "function", "function": {"name": use.tools[0]["function"]["name"]}}
    return use.choice


def _streams(call: ChatCall) -> bool:
    """Whether vLLM hands out the answer as it grows; of one in a given form, for us to see that it has begun."""
    return call.stream or call.has_grammar


def _raise_if_cancelled() -> None:
    """Undo that vLLM turns the cancellation of a whole answer into an error response."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def finish_reason(reason: str | None) -> FinishReason:
    """Vouch that an answer is whole.

    Raises:
        EngineError: it was cut off (`abort`), or is not an answer at all.
    """
    if reason in {"stop", "tool_calls"}:
        return "stop"  # whether it has called something, its calls say
    if reason == "length":
        return "length"
    raise EngineError(f"the engine ended the answer with {reason!r}")


def _split(parser: Any, request: Any, result: Any, output: Any) -> tuple[str, str, list[CallDelta]]:
    """The output's new text, and its new reasoning and calls as vLLM's parsers tell them apart."""
    if parser is None:
        return output.text, "", []
    delta = parser.parse_delta(
        delta_text=output.text,
        delta_token_ids=list(output.token_ids),
        request=request,
        prompt_token_ids=result.prompt_token_ids,
        finished=output.finish_reason is not None,
    )
    if delta is None:
        return "", "", []
    return delta.content or "", delta.reasoning or "", _calls(enumerate(delta.tool_calls))


def _calls(calls: Iterable[tuple[int, Any]]) -> list[CallDelta]:
    """Calls in vLLM's own objects, which have numbers where they are streamed."""
    return [
        CallDelta(getattr(call, "index", number), call.id, call.function.name, call.function.arguments or "")
        for number, call in calls
        if call.function is not None
    ]


def _whole(response: Any) -> Chunk:
    choice = response.choices[0]
    usage = Usage(response.usage.prompt_tokens, response.usage.completion_tokens)
    message = choice.message
    calls = _calls(enumerate(message.tool_calls))
    return Chunk(message.content or "", message.reasoning or "", finish_reason(choice.finish_reason), usage, calls)


def _without_hidden(chunk: Chunk, call: ChatCall) -> Chunk:
    if call.thinking == "show" or not chunk.reasoning:
        return chunk
    return chunk._replace(reasoning="")
