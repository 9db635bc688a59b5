"""The tables and drawings in docs/ that are made from the code, between marks: `<!-- made: NAME -->`, `<!-- end -->`.

`scripts/docs` writes them; a test fails where what is committed differs from what the code says.
"""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, get_args

from pydantic import BaseModel

from inferbus_client.contract import topics
from inferbus_client.contract.histogram import Histogram
from inferbus_client.contract.presence import (
    GroupStats,
    Instance,
    Latency,
    Level,
    ModelStats,
    Presence,
    SlotStats,
    Stats,
)
from inferbus_client.contract.wire import (
    FAILURES,
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
    schemas,
)
from inferbus_client.contract.wire.messages import (
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
from support.described_bus import files
from support.meanings import meaning
from support.scripts import ROOT

PAGES: Final = (ROOT / "docs/architecture.md", ROOT / "docs/contract.md")
_MADE: Final = re.compile(r"(<!-- made: (?P<name>[^>]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_INT64: Final = {-(2**63), 2**63}


def main() -> int:
    """Write every block anew."""
    for page in PAGES:
        page.write_text(written(page.read_text()))
    for path, text in files():
        (ROOT / path).parent.mkdir(exist_ok=True)
        (ROOT / path).write_text(text)
    return 0


def written(text: str) -> str:
    """A page with its blocks as the code has them now."""
    return _MADE.sub(lambda found: f"{found[1]}\n{_BLOCKS[found['name']]()}\n\n{found[4]}", text)


def names(text: str) -> list[str]:
    """The blocks of a page."""
    return [found["name"] for found in _MADE.finditer(text)]


# --- topics and failures ---


def _topics() -> str:
    project, session, worker = "{project}", "{session}", "{worker}"
    rows = [
        (topics.user_input(project), "in", "a JSON object, or plain text", "a request; its session is `sessionId`"),
        (topics.user_input(project, session), "in", "the same, or empty", "a request; **empty resets the session**"),
        (topics.session_request(project), "in", "anything", "asks for a new session id"),
        (topics.session_response(project), "out", "the new id", "the answer, unless a Response Topic is named"),
        (topics.cancel(project, session), "in", 'empty, or `{"requestId": "…"}`', "ends what waits or runs there"),
        (topics.assistant_response(project, session), "out", "text, or a JSON reply", "where replies go by default"),
        (topics.presence(worker), "out, retained", "[presence](#presence)", "its Last Will says `offline`"),
        (topics.stats(worker), "out", "[stats](#stats)", "each interval, and when somebody asks"),
        (topics.stats_request(worker), "in", "anything", "asks for them; answered once a second at most"),
        (topics.drain(worker), "in", "anything", "asks it to finish what it has and leave, where it is allowed to"),
        (topics.probe(worker), "in, out", "anything", "its own, where it is one of a [group](#a-group-of-workers)"),
    ]
    return _table(["topic", "direction", "payload", "meaning"], [(f"`{topic}`", *rest) for topic, *rest in rows])


def _failures() -> str:
    rows = [
        (f"`{code}`", str(kind.status), "yes" if kind.retryable else "no", f"`{_sentence(code, kind.sentence)}`")
        for code, kind in FAILURES.items()
    ]
    return _table(["code", "status", "retryable", "sentence in text replies"], rows)


def _sentence(code: str, words: str) -> str:
    return f"{words} <what is wrong>" if code == "invalid_request" else words


def _bounds() -> str:
    rows = [
        ("levels of objects and lists", schemas.MAX_DEPTH),
        ("values of any kind", schemas.MAX_ELEMENTS),
        ("letters of all keys and texts", schemas.MAX_CHARACTERS),
        ("entries of one `anyOf`, `oneOf` or `allOf`", schemas.MAX_BRANCHES),
        ("`minLength`, `maxLength`", schemas.MAX_LENGTH),
        ("bounds on numbers of items and properties", schemas.MAX_ITEMS),
        ("letters of one pattern", schemas.MAX_PATTERN),
        ("groups within groups of a pattern", schemas.MAX_PATTERN_DEPTH),
        ("what one pattern matches, its repetitions written out", schemas.MAX_PATTERN_STEPS),
        ("lengths, items and patterns together", schemas.MAX_STEPS),
        ("the least common multiple of every `multipleOf`", schemas.MAX_MULTIPLE),
    ]
    return _table(["what", "at most"], [(what, f"{most:,}") for what, most in rows])


# --- models ---


def _keys(*rows: Iterable[str]) -> str:
    return _table(["key", "type", "meaning"], rows)


def _rows(model: type[BaseModel], *, own: bool = False, within: str = "") -> list[Sequence[str]]:
    """A model's keys.

    Args:
        model: which.
        own: whether to leave out what the model has from the one that it extends.
        within: the key that holds it.
    """
    schema = model.model_json_schema()
    inherited = {name for base in model.__bases__ if own for name in getattr(base, "model_fields", {})}
    fields = [(name, field) for name, field in model.model_fields.items() if name not in inherited]
    keys = [field.alias or name for name, field in fields]
    return [(f"`{within}{key}`", _kind(schema["properties"][key]), meaning(model, key)) for key in keys]


def _message() -> str:
    """The messages of a conversation, by their roles."""
    kinds = (SystemMessage, UserMessage, AssistantMessage, ToolMessage)
    rows = [
        (f"`{get_args(kind.model_fields['role'].annotation)[0]}`", *row)
        for kind in kinds
        for row in _rows(kind)
        if row[0] != "`role`"
    ]
    return _table(["role", "key", "type", "meaning"], rows)


def _kind(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words. Whether something may be null is said where it means something."""
    choices = schema.get("anyOf", schema.get("oneOf"))
    if choices is not None:
        return ", or ".join(dict.fromkeys(_kind(choice) for choice in choices if choice.get("type") != "null"))
    if "$ref" in schema:
        title = _TITLES[schema["$ref"].rpartition("/")[2]]
        slug = title.replace(" ", "-").replace("'", "")
        return f"[{title}](#{slug})"
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if values:
        return ", ".join(f"`{value}`" for value in values) if len(values) < len(FAILURES) else "[a code](#failures)"
    return _type(schema)


def _type(schema: Mapping[str, Any]) -> str:
    kind = str(schema["type"])
    match kind:
        case "boolean":
            return "`true`, `false`"
        case "string":
            most, least = schema.get("maxLength"), schema.get("minLength", 0)
            return "text" if most is None else f"text of {least} to {most:,} characters"
        case "array":
            most, least = schema.get("maxItems"), schema.get("minItems", 0)
            return ("list of " if most is None else f"list of {least} to {most:,}: ") + _kind(schema["items"])
        case "object" if isinstance(schema.get("additionalProperties"), Mapping):
            return f"object of {_kind(schema['additionalProperties'])}"
    return kind + _range(schema)


def _range(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minimum"), schema.get("maximum", schema.get("exclusiveMaximum"))
    if "exclusiveMinimum" in schema:
        return f", more than {schema['exclusiveMinimum']:g}, at most {most:,g}"
    if least in _INT64:
        return ""
    if most is None or most in _INT64:
        return "" if least is None else f", {least:g} or more"
    return f", {least:g} to {most:,}"


#: The sections of the models that stand in others.
_TITLES: Final = {
    "TextPart": "a piece of text",
    "ImagePart": "an image",
    "ImageUrl": "an image",
    "SystemMessage": "a message",
    "UserMessage": "a message",
    "AssistantMessage": "a message",
    "ToolMessage": "a message",
    "ToolCall": "a tool call",
    "CalledFunction": "a tool call",
    "Tool": "a tool",
    "Function": "a tool",
    "NamedTool": "a named tool",
    "NamedFunction": "a named tool",
    "ToolResult": "a tool's result",
    "CallDelta": "a call's delta",
    "CalledDelta": "a call's delta",
    "Params": "sampling parameters",
    "Usage": "usage",
    "Timing": "timing",
    "Instance": "instance",
    "Histogram": "histograms",
    "Level": "levels",
    "Latency": "latency",
    "GroupStats": "a group of workers",
    "ModelStats": "models",
    "SlotStats": "slots",
}


# --- rooms ---


def _rooms(wing: str) -> str:
    """The arrows that `tests/unit/test_rooms.py` allows, as a drawing."""
    rooms: Mapping[str, str] = runpy.run_path(str(ROOT / "tests/unit/test_rooms.py"))[wing]
    arrows = [f"  {name} --> {' & '.join(used.split())}" for name, used in rooms.items() if used]
    alone = [f"  {name}" for name, used in rooms.items() if not used]
    return "\n".join(["```mermaid", "flowchart TD", *arrows, *alone, "```"])


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(header)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells).strip() + " |" for cells in lines).replace("|  |", "| |")


_BLOCKS: Final[Mapping[str, Callable[[], str]]] = {
    "topics": _topics,
    "request": lambda: _keys(*_rows(Request, own=True), *_rows(Envelope)),
    "control": lambda: _keys(*_rows(Control, own=True)),
    "params": lambda: _keys(*_rows(Params)),
    "text part": lambda: _keys(*_rows(TextPart)),
    "image part": lambda: _keys(*_rows(ImagePart), *_rows(ImageUrl, within="image_url.")),
    "message": _message,
    "tool call": lambda: _keys(*_rows(ToolCall), *_rows(CalledFunction, within="function.")),
    "tool": lambda: _keys(*_rows(Tool), *_rows(Function, within="function.")),
    "named tool": lambda: _keys(*_rows(NamedTool), *_rows(NamedFunction, within="function.")),
    "tool's result": lambda: _keys(*_rows(ToolResult)),
    "call's delta": lambda: _keys(*_rows(CallDelta), *_rows(CalledDelta, within="function.")),
    "bounds": _bounds,
    "reply": lambda: _keys(*_rows(Reply)),
    "accepted": lambda: _keys(*_rows(Accepted, own=True)),
    "delta": lambda: _keys(*_rows(Delta, own=True)),
    "done": lambda: _keys(*_rows(Done, own=True)),
    "error": lambda: _keys(*_rows(ErrorReply, own=True)),
    "usage": lambda: _keys(*_rows(Usage)),
    "timing": lambda: _keys(*_rows(Timing)),
    "failures": _failures,
    "presence": lambda: _keys(*_rows(Presence)),
    "instance": lambda: _keys(*_rows(Instance)),
    "stats": lambda: _keys(*_rows(Stats)),
    "latency": lambda: _keys(*_rows(Latency)),
    "levels": lambda: _keys(*_rows(Level)),
    "group": lambda: _keys(*_rows(GroupStats)),
    "models": lambda: _keys(*_rows(ModelStats)),
    "slots": lambda: _keys(*_rows(SlotStats)),
    "histograms": lambda: _keys(*_rows(Histogram)),
    "worker's rooms": lambda: _rooms("_WORKER"),
    "client's rooms": lambda: _rooms("_CLIENT"),
}


if __name__ == "__main__":
    sys.exit(main())
