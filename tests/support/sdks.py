"""The SDKs of OpenAI and Anthropic, sync and async, behind one face: what each is asked and what each makes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Final, Protocol

import anthropic
import openai

from support.waiting import PATIENCE


@dataclass(frozen=True)
class Heard:
    """What an SDK has made of an answer.

    Attributes:
        text: of it.
        model: that answered, by the name it was asked for.
        ended: why, in the shape's own words.
        tokens: in and out.
        calls: of tools: the id, the name, what with.
        pieces: how many pieces of text a stream had.
        retries: of the SDK's own.
    """

    text: str
    model: str
    ended: str | None
    tokens: tuple[int, int] | None
    calls: tuple[tuple[str, str, Mapping[str, Any]], ...] = ()
    pieces: int = 0
    retries: int = 0


class Sdk(Protocol):
    """One SDK that asks a gateway.

    Args:
        url: the gateway's.
        key: an API key.
        retries: how often the SDK tries again by itself.
        timeout: seconds after which it gives up.
    """

    errors: ClassVar[ModuleType]

    def __init__(self, url: str, key: str, *, retries: int = 0, timeout: float = PATIENCE) -> None: ...

    def ask(self, model: str, messages: Any, **more: Any) -> Heard:
        """A whole answer."""

    def stream(self, model: str, messages: Any, **more: Any) -> Heard:
        """An answer as it comes, put together by the SDK."""

    def leave(self, model: str, messages: Any, begun: Callable[[], object], **more: Any) -> None:
        """Begin a stream, call `begun` after its first event, and close it."""


class _OpenAI:
    errors: ClassVar[ModuleType] = openai

    def __init__(self, url: str, key: str, *, retries: int = 0, timeout: float = PATIENCE) -> None:
        self._options: dict[str, Any] = {
            "base_url": f"{url}/v1",
            "api_key": key,
            "max_retries": retries,
            "timeout": timeout,
        }

    @staticmethod
    def _whole(completion: openai.types.chat.ChatCompletion, retries: int = 0, pieces: int = 0) -> Heard:
        (choice,) = completion.choices
        usage = completion.usage
        calls = [call for call in choice.message.tool_calls or () if call.type == "function"]
        return Heard(
            text=choice.message.content or "",
            model=completion.model,
            ended=choice.finish_reason,
            tokens=None if usage is None else (usage.prompt_tokens, usage.completion_tokens),
            calls=tuple((call.id, call.function.name, json.loads(call.function.arguments)) for call in calls),
            pieces=pieces,
            retries=retries,
        )


class OpenAISync(_OpenAI):
    def ask(self, model: str, messages: Any, **more: Any) -> Heard:
        with openai.OpenAI(**self._options) as client:
            raw = client.chat.completions.with_raw_response.create(model=model, messages=messages, **more)
            return self._whole(raw.parse(), raw.retries_taken)

    def stream(self, model: str, messages: Any, **more: Any) -> Heard:
        more["stream_options"] = {"include_usage": True}
        with (
            openai.OpenAI(**self._options) as client,
            client.chat.completions.stream(model=model, messages=messages, **more) as stream,
        ):
            pieces = sum(event.type == "content.delta" for event in stream)
            return self._whole(stream.current_completion_snapshot, pieces=pieces)

    def leave(self, model: str, messages: Any, begun: Callable[[], object], **more: Any) -> None:
        with openai.OpenAI(**self._options) as client:
            stream = client.chat.completions.create(model=model, messages=messages, stream=True, **more)
            next(iter(stream))
            begun()
            stream.close()


class OpenAIAsync(_OpenAI):
    def ask(self, model: str, messages: Any, **more: Any) -> Heard:
        async def asking() -> Heard:
            async with openai.AsyncOpenAI(**self._options) as client:
                raw = await client.chat.completions.with_raw_response.create(model=model, messages=messages, **more)
                return self._whole(raw.parse(), raw.retries_taken)

        return asyncio.run(asking())

    def stream(self, model: str, messages: Any, **more: Any) -> Heard:
        more["stream_options"] = {"include_usage": True}

        async def asking() -> Heard:
            async with (
                openai.AsyncOpenAI(**self._options) as client,
                client.chat.completions.stream(model=model, messages=messages, **more) as stream,
            ):
                pieces = sum([event.type == "content.delta" async for event in stream])
                return self._whole(stream.current_completion_snapshot, pieces=pieces)

        return asyncio.run(asking())

    def leave(self, model: str, messages: Any, begun: Callable[[], object], **more: Any) -> None:
        async def asking() -> None:
            async with openai.AsyncOpenAI(**self._options) as client:
                stream = await client.chat.completions.create(model=model, messages=messages, stream=True, **more)
                await anext(aiter(stream))
                begun()
                await stream.close()

        asyncio.run(asking())


class _Anthropic:
    errors: ClassVar[ModuleType] = anthropic

    def __init__(self, url: str, key: str, *, retries: int = 0, timeout: float = PATIENCE) -> None:
        self._options: dict[str, Any] = {"base_url": url, "api_key": key, "max_retries": retries, "timeout": timeout}

    @staticmethod
    def _whole(message: anthropic.types.Message, retries: int = 0, pieces: int = 0) -> Heard:
        calls = [block for block in message.content if block.type == "tool_use"]
        return Heard(
            text="".join(block.text for block in message.content if block.type == "text"),
            model=message.model,
            ended=message.stop_reason,
            tokens=(message.usage.input_tokens, message.usage.output_tokens),
            calls=tuple((call.id, call.name, call.input) for call in calls),
            pieces=pieces,
            retries=retries,
        )

    @staticmethod
    def _asked(more: Mapping[str, Any]) -> dict[str, Any]:
        """Newer SDKs have no argument for what Anthropic's newer models do not take any more."""
        sampling = {name: more[name] for name in ("temperature", "top_p", "top_k") if name in more}
        others = {name: value for name, value in more.items() if name not in sampling}
        return {"max_tokens": 1000, **others, "extra_body": sampling}


class AnthropicSync(_Anthropic):
    def ask(self, model: str, messages: Any, **more: Any) -> Heard:
        with anthropic.Anthropic(**self._options) as client:
            raw = client.messages.with_raw_response.create(model=model, messages=messages, **self._asked(more))
            return self._whole(raw.parse(), raw.retries_taken)

    def stream(self, model: str, messages: Any, **more: Any) -> Heard:
        with (
            anthropic.Anthropic(**self._options) as client,
            client.messages.stream(model=model, messages=messages, **self._asked(more)) as stream,
        ):
            pieces = sum(1 for _ in stream.text_stream)
            return self._whole(stream.get_final_message(), pieces=pieces)

    def leave(self, model: str, messages: Any, begun: Callable[[], object], **more: Any) -> None:
        with anthropic.Anthropic(**self._options) as client:
            stream = client.messages.create(model=model, messages=messages, stream=True, **self._asked(more))
            next(iter(stream))
            begun()
            stream.close()


class AnthropicAsync(_Anthropic):
    def ask(self, model: str, messages: Any, **more: Any) -> Heard:
        async def asking() -> Heard:
            async with anthropic.AsyncAnthropic(**self._options) as client:
                asked = self._asked(more)
                raw = await client.messages.with_raw_response.create(model=model, messages=messages, **asked)
                return self._whole(await raw.parse(), raw.retries_taken)

        return asyncio.run(asking())

    def stream(self, model: str, messages: Any, **more: Any) -> Heard:
        async def asking() -> Heard:
            async with (
                anthropic.AsyncAnthropic(**self._options) as client,
                client.messages.stream(model=model, messages=messages, **self._asked(more)) as stream,
            ):
                pieces = sum([1 async for _ in stream.text_stream])
                return self._whole(await stream.get_final_message(), pieces=pieces)

        return asyncio.run(asking())

    def leave(self, model: str, messages: Any, begun: Callable[[], object], **more: Any) -> None:
        async def asking() -> None:
            async with anthropic.AsyncAnthropic(**self._options) as client:
                stream = await client.messages.create(model=model, messages=messages, stream=True, **self._asked(more))
                await anext(aiter(stream))
                begun()
                await stream.close()

        asyncio.run(asking())


#: Each of them, for `parametrize`.
SDKS: Final[tuple[type[Sdk], ...]] = (OpenAISync, OpenAIAsync, AnthropicSync, AnthropicAsync)
