"""What the shapes of chat completions have in common: reading a stranger's JSON, and what a request may ask for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from typing import Any, Final

from pydantic_core import from_json

from inferbus_worker.chat import CallDelta, FinishReason, Message, ToolUse, Usage, publishable
from inferbus_worker.engines.base import ChatCall, EngineError, InvalidCallError
from inferbus_worker.engines.call_checks import check_messages, checked_parameters
from inferbus_worker.engines.loop_generation import Chunk
from inferbus_worker.engines.remote.errors import cut
from inferbus_worker.engines.remote.pace import Pace
from inferbus_worker.engines.remote.place import RemotePlace
from inferbus_worker.engines.remote.row import BackendRow, figure

#: Characters of ASCII in a token, and tokens around a message: a guess that is rather too long than too short.
_CHARACTERS_PER_TOKEN: Final = 3.5
_FRAME: Final = 8
#: What an image may cost.
_IMAGE: Final = 1024

#: A figure of a server's that is so many times what can be is none; and tokens that its template may add to a prompt.
_FAR_OFF: Final = 16
_TEMPLATE: Final = 4096

#: Seconds that a server has, after the reason why an answer ended, for its usage and the stream's end.
_PATIENCE: Final = 2.0

_FINISHED: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}
_CALLED: Final = frozenset({"tool_calls", "tool_use", "function_call"})
_FILTERED: Final = frozenset({"content_filter", "refusal", "safety"})


def finish_reason(reason: object, use: ToolUse | None) -> FinishReason:
    """Why an answer ended well; whether it has called something, its calls say.

    Args:
        reason: the server's word.
        use: what the model was offered to call.

    Raises:
        InvalidCallError: the server's filter did not like what was said.
        EngineError: it ended in another way.
    """
    if reason in _CALLED:
        if use is None:
            raise EngineError("the model called a tool, which nobody has offered it")
        return "stop"
    found = _FINISHED.get(reason) if isinstance(reason, str) else None
    if found is not None:
        return found
    if reason in _FILTERED:
        raise InvalidCallError("The model's server has filtered this conversation out.")
    raise EngineError("the server ended the answer for a reason of its own")


def mapping(value: object) -> Mapping[str, Any]:
    """`value`, if it is an object of JSON's, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def text(value: object) -> str:
    """`value`, if it is a text, else none; half a character, which UTF-8 has no form for, becomes `?`."""
    return publishable(value) if isinstance(value, str) else ""


class Tally:
    """What an answer has cost, by the server's word; where it says nothing, by our estimate.

    Attributes:
        reason: why it has ended; None while it goes on.
    """

    def __init__(self, call: ChatCall) -> None:
        self.reason: FinishReason | None = None
        self._call = call
        self._prompt: int | None = None
        self._completion: int | None = None
        self._said: list[str] = []

    def say(self, grown: str) -> None:
        self._said.append(grown)

    def tell(self, prompt: object, completion: object) -> None:
        """Take the server's figures; what is none, or cannot be true, leaves what was told before."""
        if (told := figure(prompt)) is not None and told <= _FAR_OFF * self._estimated_prompt + _TEMPLATE:
            self._prompt = told
        if (told := figure(completion)) is not None and told <= _FAR_OFF * self._call.sampling.max_tokens:
            self._completion = told

    def last(self, place: RemotePlace) -> Chunk:
        """The chunk that ends the answer.

        Raises:
            BackendError: it has ended without a reason.
        """
        if self.reason is None:
            raise cut(place)
        return Chunk("", "", self.reason, self.usage)

    @property
    def usage(self) -> Usage:
        """Never 0 for what is text."""
        said = "".join(self._said)
        return Usage(self._prompt or self._estimated_prompt, self._completion or (estimate(said) if said else 0))

    @cached_property
    def _estimated_prompt(self) -> int:
        return estimate_prompt(self._call)


async def until_its_end(stream: Any, tally: Tally) -> AsyncIterator[Any]:
    """What comes; once the answer has a reason to have ended, only what still comes soon, and no failure any more.

    A stream that is read to its end leaves its connection for the next one.
    """
    events, pace = aiter(stream), Pace()
    until: float | None = None
    while True:
        if until is None and tally.reason is not None:
            until = asyncio.get_running_loop().time() + _PATIENCE
        try:
            async with asyncio.timeout_at(until):
                event = await anext(events)
        except StopAsyncIteration:
            return
        except Exception:
            if tally.reason is None:
                raise
            return
        yield event
        if pace.is_over:
            await pace.rest()


def estimate(said: str) -> int:
    """How many tokens a text has, more or less: scripts other than Latin take one for a character."""
    narrow = sum(map(str.isascii, said)) if not said.isascii() else len(said)
    return int(narrow / _CHARACTERS_PER_TOKEN) + len(said) - narrow + 1


def estimate_prompt(call: ChatCall) -> int:
    """How many tokens a prompt has, more or less."""
    offered_tools = 0 if call.tools is None else estimate(json.dumps(call.tools.tools))
    return offered_tools + sum(_FRAME + _estimate_message(message) for message in call.messages)


def _estimate_message(message: Message) -> int:
    called = sum(_FRAME + estimate(call["function"]["arguments"]) for call in message.get("tool_calls") or ())
    return called + _estimate_content(message.get("content"))


def _estimate_content(content: object) -> int:
    if isinstance(content, str):
        return estimate(content)
    parts = content if isinstance(content, list) else []
    return sum(_IMAGE if part.get("type") == "image_url" else estimate(text(part.get("text"))) for part in parts)


def checked(call: ChatCall, row: BackendRow, *, also: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The requesters' parameters of a call that its server takes, by our names.

    Args:
        call: the call.
        row: of its server.
        also: parameters that it takes besides.

    Raises:
        InvalidCallError: it does not take one, or the messages hold what it does not take.
    """
    check_messages(call.messages, images=row.images)
    extra = checked_parameters(call.sampling.extra)
    taken = row.parameters.keys() | also | ({"response_format"} if row.form else set())
    if refused := sorted(extra.keys() - taken):
        raise InvalidCallError(f"This model's server takes no {refused[0]}.")
    if not call.has_form:
        extra.pop("response_format", None)
    elif mapping(extra["response_format"]).get("type") not in {"json_object", "json_schema"}:
        raise InvalidCallError("response_format must be of type text, json_object or json_schema.")
    return extra


def offered(call: ChatCall, row: BackendRow) -> ToolUse | None:
    """What the model may call, with a choice that its server heeds.

    Raises:
        InvalidCallError: it heeds none.
    """
    use = call.tools
    if use is not None and use.choice == "none" and row.tools == "auto":
        return None
    if use is None or not use.is_forced or row.tools == "named":
        return use
    if row.tools == "auto":
        raise InvalidCallError("toolChoice: this model's server leaves it to the model whether to call a tool.")
    if use.named is None:
        return use
    # To offer one alone, and to have one called, is to name it.
    return use._replace(tools=[tool for tool in use.tools if tool["function"]["name"] == use.named], choice="required")


def schema(form: Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON Schema of a `response_format`; of `json_object`, any object's.

    Raises:
        InvalidCallError: there is none.
    """
    if form.get("type") == "json_object":
        return {"type": "object"}
    found = mapping(form.get("json_schema")).get("schema")
    if not isinstance(found, Mapping):
        raise InvalidCallError("response_format must hold a json_schema with a schema.")
    return found


def calls(said: object) -> list[CallDelta]:
    """What a server says of calls in OpenAI's shape, of which it may leave out what does not change."""
    found = []
    for number, call in enumerate(said if isinstance(said, list) else ()):
        function = mapping(mapping(call).get("function"))
        told = figure(mapping(call).get("index"))
        grown = function.get("arguments")
        # Some send them as the object that they are.
        written = json.dumps(grown) if isinstance(grown, Mapping) else text(grown)
        call_id, name = text(mapping(call).get("id")) or None, text(function.get("name")) or None
        found.append(CallDelta(number if told is None else told, call_id, name, written))
    return found


def answer_bound(call: ChatCall, place: RemotePlace, context: int) -> int:
    """How many tokens to ask for: what the call wants, as far as the context goes."""
    most = min(call.sampling.max_tokens, context)
    if place.row.clamps:
        return most
    return max(1, min(most, context - estimate_prompt(call)))


def data_uri(part: Mapping[str, Any]) -> tuple[str, str]:
    """What stands before the comma of an image part's data URI, and the data behind it."""
    image = part["image_url"]
    head, _, data = str(image["url"] if isinstance(image, Mapping) else image).partition(",")
    return head, data


def arguments(said: object) -> Mapping[str, Any]:
    """A tool call's arguments, which are JSON in a text; of what is no object, none.

    What a model has written is in its conversation for good, and that has to go on.
    """
    found = _object(said)
    return {} if found is None else found


def readable(message: Message) -> Message:
    """A message whose calls servers can read: some fail at arguments that are no object, which looks like a fault."""
    if not (calls := message.get("tool_calls")):
        return message
    return {**message, "tool_calls": [_readable(call) for call in calls]}


def _readable(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call["function"]
    return call if _object(function["arguments"]) is not None else {**call, "function": {**function, "arguments": "{}"}}


def _object(said: object) -> Mapping[str, Any] | None:
    try:
        found = from_json(said, allow_inf_nan=False) if isinstance(said, str) else None
        json.dumps(found, allow_nan=False)  # 1e999 is read as a number that JSON has no word for
    except ValueError:
        return None
    return found if isinstance(found, Mapping) else None
