"""OpenAI's request body as the options of `ask`; what we cannot do is refused by its name.

https://platform.openai.com/docs/api-reference/chat/create has the names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic.alias_generators import to_snake

from inferbus_client.contract.wire import Failure, Params
from inferbus_client.errors import InvalidRequestError
from inferbus_client.exchange.call import Messages
from inferbus_client.exchange.options import AskOptions

_OPTIONS: Final = ("model", "temperature", "top_p", "tools", "tool_choice", "parallel_tool_calls")
_LENGTHS: Final = ("max_completion_tokens", "max_tokens")
#: What may be said as long as it says what happens anyway.
_AS_IT_IS: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "stream": (False,),
    "logprobs": (False,),
    "store": (False,),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
}
#: Labels for whoever keeps accounts: they change no answer.
_LABELS: Final = frozenset({"user", "metadata"})
#: What an answer has that comes back with it as a part of the conversation, and tells a model nothing: empty, or what
#: it thought, which templates leave out of earlier turns.
_OF_ANSWERS: Final = frozenset({"refusal", "audio", "function_call", "annotations", "tool_calls"})
_THOUGHTS: Final = frozenset({"reasoning_content", "reasoning"})
#: What the wire calls our keys, where that is not OpenAI's name.
_ON_THE_WIRE: Final = re.compile(r"^(params\.|maxTokens\b|topP\b|toolChoice\b|parallelToolCalls\b)")
#: Where the wire says which kind of message it is.
_KINDS: Final = re.compile(r"^(messages\.\d+)\.(?:system|user|assistant|tool)\.")


def asked_for(body: object) -> tuple[Messages, AskOptions]:
    """What a body asks.

    Raises:
        InvalidRequestError: what we cannot do, by its name.
    """
    if not isinstance(body, dict):
        raise invalid("body: must be an object.")
    said = {name: value for name, value in body.items() if value is not None and name not in _LABELS}
    messages = said.pop("messages", None)
    if not isinstance(messages, list):
        raise invalid("messages: must be a list.")
    options = _options(said)
    _refuse(said)
    for number, message in enumerate(messages):
        _check_images(number, message)
    return [_message(message) for message in messages], options


def spelled(detail: str) -> str:
    """What is wrong with a request, by OpenAI's names."""
    named = _ON_THE_WIRE.sub(lambda found: "" if found[1] == "params." else to_snake(found[1]), detail)
    return _KINDS.sub(r"\1.", named)


def invalid(detail: str) -> InvalidRequestError:
    return InvalidRequestError(Failure("invalid_request", detail))


def _check_images(number: int, message: Any) -> None:
    """An image comes along, or not at all."""
    parts = message.get("content") if isinstance(message, dict) else None
    for place, part in enumerate(parts if isinstance(parts, list) else ()):
        image = part.get("image_url") if isinstance(part, dict) else None
        url = image.get("url") if isinstance(image, dict) else None
        if isinstance(url, str) and not url.startswith("data:"):
            where = f"messages.{number}.content.{place}.image_url.url"
            raise invalid(f"{where}: must be a data URI, data:image/…;base64,…: nobody here fetches anything.")


def _message(message: Any) -> Any:
    """A message in the wire's words. What is none, the wire refuses."""
    if not isinstance(message, dict):
        return message
    if message.get("role") == "developer":
        message = {**message, "role": "system"}
    elif message.get("role") == "assistant":
        idle = {name for name in _OF_ANSWERS if name in message and not message[name]}
        message = {name: value for name, value in message.items() if name not in idle | _THOUGHTS}
    return message


def _options(said: dict[str, Any]) -> AskOptions:
    """Takes out what `ask` has options for."""
    lengths = [name for name in _LENGTHS if name in said]
    if len(lengths) > 1:
        raise invalid(f"{' and '.join(lengths)} exclude each other.")
    tools = said.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise invalid("tools: must be a list of objects.")
    options: dict[str, Any] = {name: said.pop(name) for name in _OPTIONS if name in said}
    options |= {"max_tokens": said.pop(name) for name in lengths}  # noqa: B035 - at most one
    if params := {name: said.pop(name) for name in Params.model_fields if name in said}:
        options["params"] = params
    return cast("AskOptions", options)


def _refuse(rest: Mapping[str, Any]) -> None:
    for name, value in rest.items():
        if name not in _AS_IT_IS:
            raise invalid(f"{name}: is not supported.")
        if not any(value == one and type(value) is type(one) for one in _AS_IT_IS[name]):
            only = " or ".join(map(repr, _AS_IT_IS[name]))
            raise invalid(f"{name}: is not supported, but for {only}.")
