"""What the keys of the contract mean, in docs/contract.md, where their models' docstrings have no `Attributes`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from inferbus_client.contract.presence import Latency, Level, Presence, Stats
from inferbus_client.contract.wire import (
    Accepted,
    Control,
    Delta,
    Done,
    Envelope,
    ErrorReply,
    Params,
    Reply,
    Request,
    Timing,
    Usage,
)
from inferbus_client.contract.wire.messages import (
    MAX_VALUES,
    AssistantMessage,
    CalledFunction,
    ImagePart,
    ImageUrl,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from inferbus_client.contract.wire.replies import CallDelta, CalledDelta
from inferbus_client.contract.wire.tools import Function, NamedFunction, NamedTool, Tool, ToolResult

#: By model, then by the key's name on the wire.
MEANINGS: Final[Mapping[type[BaseModel], Mapping[str, str]]] = {
    Envelope: {
        "sessionId": "whose conversation; a number is taken as text. Missing or blank: a fresh `default-…` id is made. "
        "The session in the topic wins",
        "requestId": "echoed in every reply; a number is taken as text; made up if missing",
        "clientId": "who asks; a number is taken as text. With `requestId`, what makes a repeat a repeat",
        "replyTopic": "where replies go, if that is [allowed](#where-replies-go)",
        "reply": "which half of the contract the replies use",
        "stream": 'deltas as the answer grows; implies `reply: "json"`',
    },
    Request: {
        "message": "not blank; this, `messages` or `toolResults` is required",
        "messages": "instead of `message`: [a whole conversation](#a-whole-conversation), oldest first; at most "
        f"{MAX_VALUES:,} keys and entries of lists in all of it",
        "temperature": "an explicit 0 is a 0, and greedy",
        "topP": "of the likeliest tokens, this share",
        "maxTokens": "the longest answer; over the project's cap it is `invalid_request`",
        "systemPrompt": "replaces the project's prompt in this session from now on, or beside `messages` in this "
        "request; an empty one is none",
        "deadlineMs": "the answer is worthless after so many milliseconds; MQTT 5's Message Expiry counts too, the "
        "sooner wins",
        "model": "which of the project's models is to answer: letters, digits, `_.:/-`, at most 128; else "
        "the project's own does",
        "params": "by their OpenAI names; one off the list is `invalid_request`",
        "tools": 'what the model [may call](#tools), where the project allows it; implies `reply: "json"`',
        "toolChoice": "`auto` (the default), `none`, `required`: it has to call something, or the one that it has to "
        "call",
        "parallelToolCalls": "`false`: one call at most",
        "toolResults": "instead of `message`: the answers to all the calls of the session's last turn; implies "
        '`reply: "json"`',
    },
    Control: {
        "reset": "on a `user_input` topic, without `message`, `messages` and `toolResults`: forgets the conversation"
    },
    Tool: {"type": "", "function": ""},
    Function: {
        "name": "letters, digits, `_.:/-`, at most 128; no two of a request are called the same",
        "description": "what it is for, for the model to read",
        "parameters": "a JSON Schema of an object, [bounded](#answers-in-a-given-form); missing: it takes none",
        "strict": "whether the model is held to them, where its engine can",
    },
    NamedTool: {"type": "", "function": ""},
    NamedFunction: {"name": "one of the request's tools"},
    ToolResult: {"toolCallId": "which call it answers", "content": "what the tool said"},
    CallDelta: {
        "index": "which call of the answer: 0, 1, 2 …",
        "id": "with the first of each call",
        "type": "there, too",
        "function": "",
    },
    CalledDelta: {"name": "there, too", "arguments": "what is new of them"},
    Params: {
        "stop": "what ends the answer",
        "seed": "the same draws again",
        "top_k": "of the likeliest tokens, so many; -1: all of them",
        "min_p": "tokens less likely than this share of the likeliest are left out",
        "presence_penalty": "against tokens that were there",
        "frequency_penalty": "against tokens that were there often",
        "repetition_penalty": "the same as a factor, the prompt's tokens too; 1: none",
        "response_format": "OpenAI's `json_object` or `json_schema`, where the project allows it; "
        "[bounded](#answers-in-a-given-form)",
    },
    TextPart: {"type": "", "text": "the words"},
    ImagePart: {"type": "", "image_url": "the image"},
    ImageUrl: {"url": "a data URI: the worker fetches nothing", "detail": "as OpenAI has it"},
    SystemMessage: {"role": "", "content": "what the model is told; stands in the place of the project's prompt"},
    UserMessage: {"role": "", "content": "what is asked; not blank"},
    AssistantMessage: {
        "role": "",
        "content": "what the model said; may be missing beside `tool_calls`",
        "tool_calls": "what it called, which tools have answered after it",
    },
    ToolMessage: {"role": "", "content": "what the tool said", "tool_call_id": "which call it answers"},
    ToolCall: {"id": "by which its result names it", "type": "", "function": ""},
    CalledFunction: {
        "name": "the tool's: letters, digits, `_.:/-`, at most 128",
        "arguments": "what it was called with, as the model wrote it: JSON, at best",
    },
    Reply: {
        "v": "the contract's version",
        "type": "",
        "requestId": "the request's, or the one that was made up for it",
        "sessionId": "the request's, or the one that was made for it",
        "seq": "0, 1, 2 … per run: a gap shows a loss",
        "run": "one more where [another worker began the request anew](#a-request-that-begins-anew); the key is "
        "missing where it is 0",
    },
    Accepted: {
        "queuePosition": "how many go before it, at most",
        "etaMs": "the wait to expect before the first token; null while unknown",
        "worker": "who has it, in a group of workers; else the key is missing",
    },
    Delta: {
        "text": "what is new since the last delta",
        "reasoning": "the same, where the project shows it",
        "toolCalls": "the same, where it calls tools",
    },
    Done: {
        "text": "the whole answer",
        "finishReason": "`length`: it was cut at `maxTokens`; `tool_calls`: it waits for what `toolCalls` give",
        "usage": "null where no model was asked (a reset, a new session)",
        "timing": "null there, too",
        "reasoning": "where the project shows it; else the key is missing",
        "model": "which one has answered; the key is missing where none was asked (a reset, a new session)",
        "toolCalls": "what it calls, whole; else the key is missing",
    },
    ErrorReply: {
        "code": "see [failures](#failures)",
        "status": "the same as a number",
        "message": "the sentence, and what is wrong with this request",
        "retryable": "whether the same request may succeed later",
        "retryAfterMs": "when, where that is known; else null",
    },
    Usage: {"promptTokens": "by the model's own tokenizer", "completionTokens": "the same"},
    Timing: {
        "queueMs": "from admission until a worker thread took it",
        "firstTokenMs": "from admission; null for what is not streamed",
        "totalMs": "from admission to the end",
    },
    Presence: {"v": "the contract's version", "worker": "its id", "state": "`ready`: it answers"},
    Stats: {
        "v": "the contract's version",
        "worker": "its id",
        "queueSize": "how many requests may wait",
        "capacity": "how many requests its engine runs at once",
        "levels": "everything that is bounded, by the names that [stand here](worker.md#what-is-bounded)",
    },
    Latency: {"avg": "the average", "p50": "half took at most so long", "p95": "19 of 20 did", "p99": "99 of 100 did"},
    Level: {"now": "what it holds", "bound": "what it may hold"},
}


def meaning(model: type[BaseModel], key: str) -> str:
    """What a key of a model means, in Markdown."""
    for kind in model.__mro__:
        if issubclass(kind, BaseModel) and kind is not BaseModel:
            told = {**_told(kind), **MEANINGS.get(kind, {})}
            if key in told:
                return told[key]
    raise KeyError(f"{model.__name__}.{key}: say in tests/support/meanings.py what it means")


def _told(model: type[BaseModel]) -> dict[str, str]:
    """What a docstring's `Attributes` say, by the keys' names on the wire."""
    text = inspect.cleandoc(model.__doc__ or "").partition("Attributes:\n")[2]
    told = {}
    for name, meaning in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE):
        field = model.model_fields[name]
        words = re.sub(r"`(\w+)`", lambda found: f"`{_key_of(model, found[1])}`", " ".join(meaning.split()))
        told[field.alias or name] = words.replace("None", "null").rstrip(".")
    return told


def _key_of(model: type[BaseModel], name: str) -> str:
    return to_camel(name) if name in model.model_fields else name


def meaning_of(model: str, key: str) -> str:
    """The same of a model by its name; nothing where the key needs no words, or the model is none of the contract's."""
    for kind in _all_below(BaseModel):
        if kind.__name__ == model and kind.__module__.startswith("inferbus_client.contract"):
            return meaning(kind, key)
    return ""


def _all_below(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for below in kind.__subclasses__():
        yield below
        yield from _all_below(below)
