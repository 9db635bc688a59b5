"""The bus as others' tools read it: an AsyncAPI 3 document, and a JSON Schema of each payload.

Both are made from the models that worker and client decode and encode with, the topics that they build, and the words
of docs/contract.md's tables. `scripts/docs` writes them; a test fails where what is committed differs.

https://www.asyncapi.com/docs/reference/specification/v3.0.0, with the MQTT bindings 0.2.0 of
https://github.com/asyncapi/bindings/tree/master/mqtt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, Final, Literal

import yaml
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from inferbus_client.contract import topics
from inferbus_client.contract.presence import Presence, Stats
from inferbus_client.contract.trace import LONGEST_TRACESTATE, TRACEPARENT, TRACESTATE
from inferbus_client.contract.wire import FAILURES, Accepted, Control, Delta, Done, ErrorReply, Request
from support.meanings import meaning_of
from support.scripts import ROOT

ASYNCAPI: Final = ROOT / "docs/asyncapi.yaml"
SCHEMAS: Final = ROOT / "docs/schemas"

#: What the worker reads, and what it writes.
_READ: Final = (Request, Control)
_WRITTEN: Final = (Accepted, Delta, Done, ErrorReply, Presence, Stats)
_MODELS: Final[tuple[type[BaseModel], ...]] = (*_READ, *_WRITTEN)

_LINK: Final = re.compile(r"\[([^\]]+)\]\([^)]+\)")
_BINDING: Final = "0.2.0"


def files() -> Iterator[tuple[str, str]]:
    """What is written, as (path in the repository, text)."""
    yield str(ASYNCAPI.relative_to(ROOT)), _as_yaml(document())
    for model in _MODELS:
        name = f"{_spelt(model.__name__)}.json"
        yield str((SCHEMAS / name).relative_to(ROOT)), json.dumps(schema(model), indent=2, ensure_ascii=False) + "\n"


def schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one payload."""
    _, defined = models_json_schema([(model, _mode(model))], ref_template="#/$defs/{model}")
    inner = {name: _told(name, shape) for name, shape in defined["$defs"].items() if name != model.__name__}
    own = _told(model.__name__, defined["$defs"][model.__name__])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **own,
        **({"$defs": inner} if inner else {}),
    }


def document() -> dict[str, Any]:
    """The bus as an AsyncAPI 3 document."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for name, (scope, whose) in {"": ("{project}", ""), "OfUser": ("{project}/users/{user}", " of one user")}.items():
        _add_requests(channels, operations, scope, name, whose)
    _add_announcements(channels, operations)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Inferbus",
            "version": "1." + version("inferbus-client"),
            "description": "Language models on a message bus: the contract, version 1. In words: docs/contract.md.",
        },
        "defaultContentType": "application/json",
        "servers": _SERVERS,
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": _messages(),
            "schemas": _schemas(),
            "parameters": _PARAMETERS,
            "correlationIds": {
                "requestId": {"location": "$message.payload#/requestId", "description": "the request's `requestId`"}
            },
        },
    }


def _add_requests(channels: dict[str, Any], operations: dict[str, Any], scope: str, suffix: str, whose: str) -> None:
    session = "{session}"
    asked = ["request", "textRequest", "control"]
    replies = ["accepted", "delta", "done", "error", "textReply"]
    add = _Adder(channels, operations, suffix)
    where_replies_go = add.channel(
        "assistantResponse",
        topics.assistant_response(scope, session),
        replies,
        f"Where replies{whose} go, unless a request names another topic that is allowed.",
    )
    new_sessions = add.channel(
        "sessionResponse",
        topics.session_response(scope),
        ["newSession", "done"],
        f"New session ids{whose}, unless MQTT 5 names a Response Topic.",
    )
    answered = {"address": {"location": "$message.payload#/replyTopic"}, "channel": {"$ref": where_replies_go}}
    add.operation(
        "ask", "receive", topics.user_input(scope), asked, f"Requests{whose}; the session is `sessionId`.", answered
    )
    add.operation(
        "askInSession",
        "receive",
        topics.user_input(scope, session),
        [*asked, "empty"],
        f"Requests{whose} in one session; an empty payload forgets its conversation.",
        answered,
    )
    add.operation(
        "newSession",
        "receive",
        topics.session_request(scope),
        ["control", "empty"],
        f"Asks for a new session id{whose}.",
        {"channel": {"$ref": new_sessions}},
    )
    add.operation(
        "cancel",
        "receive",
        topics.cancel(scope, session),
        ["control", "empty"],
        f"Ends what waits or runs in a session{whose}, or the one request that `requestId` names.",
        answered,
    )


def _add_announcements(channels: dict[str, Any], operations: dict[str, Any]) -> None:
    add = _Adder(channels, operations, "")
    worker = "{worker}"
    add.operation(
        "announce",
        "send",
        topics.presence(worker),
        ["presence"],
        "What a worker is and does. Its Last Will says `offline`.",
        retain=True,
    )
    stats = add.operation("tellStats", "send", topics.stats(worker), ["stats"], "A worker's figures.", qos=0)
    add.operation(
        "askForStats",
        "receive",
        topics.stats_request(worker),
        ["empty"],
        "Anything asks for the figures; answered once a second at most.",
        {"channel": {"$ref": stats}},
    )
    add.operation(
        "drain",
        "receive",
        topics.drain(worker),
        ["empty"],
        "Asks a worker to finish what it has and leave; heeded where it is allowed to (`--remote-drain`).",
    )
    probed = "What a worker of a group sends itself through a shared subscription, to see if the broker deals any."
    add.operation("probe", "receive", topics.probe(worker), ["empty"], probed)


class _Adder:
    """Adds channels, and what the worker does there."""

    def __init__(self, channels: dict[str, Any], operations: dict[str, Any], suffix: str) -> None:
        self._channels = channels
        self._operations = operations
        self._suffix = suffix

    def channel(self, name: str, address: str, messages: list[str], description: str) -> str:
        """Add one; a reference to it."""
        self._channels[name + self._suffix] = {
            "address": address,
            "description": description,
            "messages": {message: {"$ref": f"#/components/messages/{message}"} for message in messages},
            "parameters": {
                name: {"$ref": f"#/components/parameters/{name}"} for name in re.findall(r"\{(\w+)\}", address)
            },
        }
        return f"#/channels/{name}{self._suffix}"

    def operation(
        self,
        name: str,
        action: Literal["send", "receive"],
        address: str,
        messages: list[str],
        description: str,
        reply: Mapping[str, Any] | None = None,
        *,
        qos: int = 1,
        retain: bool = False,
    ) -> str:
        """Add one with a channel of its own; a reference to that channel."""
        channel = self.channel(name, address, messages, description)
        self._operations[name + self._suffix] = {
            "action": action,
            "channel": {"$ref": channel},
            "summary": description,
            "bindings": {"mqtt": {"qos": qos, "retain": retain, "bindingVersion": _BINDING}},
            **({"reply": reply} if reply else {}),
        }
        return channel


def _messages() -> dict[str, Any]:
    in_json: Mapping[str, tuple[type[BaseModel], str, bool]] = {
        "request": (Request, "A request.", True),
        "control": (Control, "What a request besides a question may be.", True),
        "accepted": (Accepted, "It is in line.", False),
        "delta": (Delta, "More of the answer.", False),
        "done": (Done, "The whole answer; the last reply.", False),
        "error": (ErrorReply, "Why there is no answer; the last reply.", False),
        "presence": (Presence, "What a worker is and does.", False),
        "stats": (Stats, "A worker's figures.", False),
    }
    asks = {"name": "requestId", "contentType": "text/plain"}
    text = {"type": "string", "description": "bare text"}
    return {
        **{
            name: {
                "name": name,
                "title": model.__name__,
                "summary": summary,
                "contentType": "application/json",
                "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
                **({"correlationId": {"$ref": "#/components/correlationIds/requestId"}} if _has_id(model) else {}),
                **({"headers": _TRACE_PROPERTIES} if _has_id(model) else {}),
                "bindings": {"mqtt": _ASKED_BINDING if is_asked else _TOLD_BINDING},
            }
            for name, (model, summary, is_asked) in in_json.items()
        },
        "textRequest": {
            **asks,
            "name": "textRequest",
            "summary": "A request in plain text: UTF-8 that is no JSON object.",
            "payload": text,
            "headers": _TRACE_PROPERTIES,
            "bindings": {"mqtt": _ASKED_BINDING},
        },
        "textReply": {
            "name": "textReply",
            "summary": "The answer's text and nothing else, or one of the sentences of a failure.",
            "contentType": "text/plain",
            "payload": text,
            "headers": _REPLY_PROPERTIES,
            "bindings": {"mqtt": _TOLD_BINDING},
        },
        "newSession": {
            "name": "newSession",
            "summary": "A new session id.",
            "contentType": "text/plain",
            "payload": {"type": "string", "pattern": r"^[A-Za-z0-9_.:-]{1,128}$"},
        },
        "empty": {"name": "empty", "summary": "Nothing, or anything: it is not read.", "payload": {}},
    }


def _has_id(model: type[BaseModel]) -> bool:
    return "request_id" in model.model_fields


def _schemas() -> dict[str, Any]:
    """Every model, and what they are made of, without keywords that draft 07 did not have."""
    pairs = [(model, _mode(model)) for model in _MODELS]
    _, defined = models_json_schema(pairs, ref_template="#/components/schemas/{model}")
    return {name: _told(name, shape) for name, shape in sorted(defined["$defs"].items())}


def _mode(model: type[BaseModel]) -> Literal["validation", "serialization"]:
    return "validation" if model in _READ else "serialization"


def _told(name: str, shape: dict[str, Any]) -> dict[str, Any]:
    """A schema with the words of docs/contract.md."""
    told = {**_bare(shape), "title": name}
    for key, inner in told.get("properties", {}).items():
        words = meaning_of(name, key)
        if words:
            inner["description"] = _LINK.sub(r"\1", words)
    return told


def _bare(value: Any) -> Any:
    """A schema without the titles that only say a key's name again, and without OpenAPI's own keyword."""
    if isinstance(value, list):
        return [_bare(one) for one in value]
    if not isinstance(value, dict):
        return value
    names = {"properties", "$defs"}
    return {
        key: {name: _bare(one) for name, one in inner.items()} if key in names else _bare(inner)
        for key, inner in value.items()
        if key not in {"title", "description", "discriminator"}
    }


def _spelt(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def _as_yaml(value: Mapping[str, Any]) -> str:
    head = "# Made from the code by scripts/docs. Edit the models, then run that.\n"
    return head + yaml.dump(dict(value), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)


class _Plain(yaml.SafeDumper):
    """Writes what stands in two places twice, instead of a reference of YAML's own."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _parameter(description: str, check: Callable[[str], bool], example: str) -> dict[str, Any]:
    if not check(example):
        raise ValueError(example)
    return {"description": description, "examples": [example]}


_PARAMETERS: Final = {
    "project": _parameter(f"A project of the worker's: {topics.NAME}", topics.is_project, "general"),
    "user": _parameter("Whose topics these are, where the broker's access rules say so.", topics.is_user, "alice"),
    "session": _parameter("A conversation: [A-Za-z0-9_.:-]{1,128}", topics.is_session, "robot-7"),
    "worker": _parameter(f"A worker's id: {topics.NAME}", topics.is_worker, "gpu-1"),
}

_ASKED_BINDING: Final = {
    "payloadFormatIndicator": 1,
    "responseTopic": {
        "type": "string",
        "description": "where replies go, if that is allowed; it wins over `replyTopic`",
    },
    "correlationData": {"type": "string", "description": "comes back with every reply"},
    "bindingVersion": _BINDING,
}
_TOLD_BINDING: Final = {"payloadFormatIndicator": 1, "bindingVersion": _BINDING}

_TRACE_PROPERTIES: Final = {
    "type": "object",
    "description": "MQTT 5's user properties: W3C's Trace Context; in replies where the request had it",
    "properties": {
        TRACEPARENT: {"type": "string", "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
        TRACESTATE: {"type": "string", "maxLength": LONGEST_TRACESTATE},
    },
}

_REPLY_PROPERTIES: Final = {
    "type": "object",
    "description": "MQTT 5's user properties",
    "properties": {
        "requestId": {"type": "string"},
        "sessionId": {"type": "string"},
        "status": {"type": "string", "enum": ["ok", *FAILURES]},
        "retryAfterMs": {"type": "string", "pattern": "^[0-9]+$"},
    },
}

_SERVERS: Final = {
    scheme: {
        "host": "localhost:" + port,
        "protocol": scheme,
        "description": words,
        "bindings": {"mqtt": {"cleanSession": True, "keepAlive": 60, "bindingVersion": _BINDING}},
    }
    for scheme, port, words in (
        ("mqtt", "1883", "MQTT 3.1.1 or 5; a broker of your own"),
        ("mqtts", "8883", "the same over TLS"),
        ("ws", "9001", "the same over WebSocket, for browsers"),
    )
}
