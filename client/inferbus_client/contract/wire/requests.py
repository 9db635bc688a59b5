"""What comes in: bytes become a `Request`, a `Control` or one `Failure`, never a guess."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError, from_json

from inferbus_client.contract.topics import is_mqtt_string, is_session
from inferbus_client.contract.wire.failures import Failure
from inferbus_client.contract.wire.messages import Content, Messages, bounded, check_not_blank, images_in, text_of
from inferbus_client.contract.wire.params import Params
from inferbus_client.contract.wire.tools import ToolChoice, ToolResults, Tools, check_choice, needs_grammar
from inferbus_client.wording import is_wrong_type, wording

_MAX_DETAIL = 300

# What the parser says of JSON that is JSON, yet cannot be taken in. Anything else it refuses is plain text.
_REFUSED_JSON = {
    "recursion limit": "nests too deep",
    "surrogate": "has a lone surrogate",
    "hex escape": "has a lone surrogate",
    "number out of range": "has a number with too many digits",
}


def _number_to_text(value: object) -> object:
    """Old clients send ids as numbers; booleans are numbers in Python alone."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def _blank_to_none(value: object) -> object:
    value = _number_to_text(value)
    return None if isinstance(value, str) and not value.strip() else value


#: What pydantic calls the branches of a union, besides `str`.
_BRANCHES = ("constrained", "list[", "literal[", "NamedTool")

#: What models are called: hubs' names have a slash, Ollama's a colon.
MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _printable(value: str) -> str:
    if not is_mqtt_string(value):
        raise PydanticCustomError("unprintable", "has a character that MQTT does not allow")
    return value


_Identifier = Annotated[str, Field(min_length=1, max_length=128)]
#: As it comes: a blank one is none.
_BlankOrIdentifier = Annotated[str, Field(max_length=128)]
_OptionalIdentifier = Annotated[
    _Identifier | None, BeforeValidator(_blank_to_none, json_schema_input_type=_BlankOrIdentifier | float | None)
]


#: Keys whose requests are answered in JSON, whatever else they say: the text half has no words for a call.
_OF_TOOLS: Final = ("tools", "toolResults")


class Envelope(BaseModel):
    """Who asks and where the answer goes: what is needed to refuse a request whose rest is wrong."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, allow_inf_nan=False
    )

    session_id: _OptionalIdentifier = None
    request_id: _OptionalIdentifier = None
    client_id: _OptionalIdentifier = None
    reply_topic: Annotated[str, Field(max_length=1024)] | None = None
    reply: Literal["text", "json"] = "text"
    stream: bool = False

    @field_validator("session_id")
    @classmethod
    def _session_is_legal(cls, value: str | None) -> str | None:
        if value is not None and not is_session(value):
            raise PydanticCustomError("session", "must match [A-Za-z0-9_.:-]{1,128}")
        return value

    @field_validator("request_id", "client_id")
    @classmethod
    def _identifier_is_printable(cls, value: str | None) -> str | None:
        return value if value is None else _printable(value)

    @field_validator("reply", "stream", mode="before")
    @classmethod
    def _null_is_default(cls, value: object, info: Any) -> object:
        return cls.model_fields[info.field_name].default if value is None else value

    @property
    def wants_json(self) -> bool:
        return self.stream or self.reply == "json"

    @classmethod
    def salvage(cls, fields: Mapping[str, object]) -> Self:
        """As much of an envelope as an invalid request still gives."""
        envelope = cls()
        for name in cls.model_fields:
            alias = to_camel(name)
            if alias not in fields:
                continue
            try:
                part = cls.model_validate({alias: fields[alias]})
            except ValidationError:
                continue
            envelope = envelope.model_copy(update={name: getattr(part, name)})
        if any(fields.get(key) is not None for key in _OF_TOOLS):
            envelope = envelope.model_copy(update={"reply": "json"})
        return envelope


class Request(Envelope):
    """A request as it came, checked. What it leaves open (None) the project's settings decide."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [key]} for key in ("message", "messages", "toolResults")]}
    )

    message: Content | None = None
    messages: Messages | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    system_prompt: str | None = None
    deadline_ms: Annotated[int, Field(ge=1, le=86_400_000)] | None = None
    model: str | None = None
    params: Annotated[Params | None, BeforeValidator(bounded)] = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    tool_results: ToolResults | None = None

    @field_validator("model")
    @classmethod
    def _model_is_a_name(cls, value: str | None) -> str | None:
        if value is not None and MODEL_NAME.fullmatch(value) is None:
            raise PydanticCustomError("model", f"must match {MODEL_NAME.pattern}")
        return value

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        if self.message is not None:
            check_not_blank(self.message)
        if (self.message is not None) + (self.messages is not None) + (self.tool_results is not None) != 1:
            raise self._asks_otherwise()
        if self.system_prompt is not None and self.brings_system_prompt:
            raise PydanticCustomError("two_prompts", "excludes a system message", {"where": "systemPrompt"})
        if self.tools is not None or self.tool_choice is not None or self.parallel_tool_calls is not None:
            check_choice(self.tools, self.tool_choice, self.parallel_tool_calls)
        return self

    def _asks_otherwise(self) -> PydanticCustomError:
        asked = [name for name in ("message", "messages", "tool_results") if getattr(self, name) is not None]
        if not asked:
            return PydanticCustomError("nothing_asked", "Field required", {"where": "message"})
        first, second = map(to_camel, asked[:2])
        return PydanticCustomError("both_asked", "excludes {first}", {"where": second, "first": first})

    @property
    def wants_json(self) -> bool:
        return self.stream or self.reply == "json" or self.has_tools

    @property
    def has_tools(self) -> bool:
        """Whether it offers tools, or brings what they have said."""
        return self.tools is not None or self.tool_results is not None

    @property
    def is_stateless(self) -> bool:
        """Whether it brings its whole conversation along, and leaves nothing of it behind."""
        return self.messages is not None

    @property
    def brings_system_prompt(self) -> bool:
        """Whether a message of its conversation stands in the place of all other system prompts."""
        return any(one.role == "system" for one in self.messages or ())

    @property
    def text(self) -> str:
        """The message's words, without its images; of a conversation, or of results, those of all of them."""
        if self.message is not None:
            return text_of(self.message)
        return "\n".join([one.text for one in self.messages or self.tool_results or ()])

    @property
    def image_count(self) -> int:
        """How many images the message has, or all messages of a conversation."""
        return images_in(self.message) if self.messages is None else sum(one.image_count for one in self.messages)

    @property
    def has_form(self) -> bool:
        """Whether the answer must keep to a form, for which an engine has to compile a grammar."""
        shape = None if self.params is None else self.params.response_format
        if shape is not None and shape["type"] != "text":
            return True
        return self.tools is not None and needs_grammar(self.tools, self.tool_choice)

    @property
    def said(self) -> list[dict[str, Any]]:
        """What it adds to its conversation, as OpenAI's chat messages."""
        if self.messages is not None:
            return [one.as_openai() for one in self.messages]
        if self.tool_results is not None:
            return [one.as_openai() for one in self.tool_results]
        content: Any = self.message
        if isinstance(content, list):
            content = [part.model_dump(exclude_none=True) for part in content]
        return [{"role": "user", "content": content}]

    def encode(self) -> bytes:
        return self.model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=True).encode()


class Control(Envelope):
    """A JSON payload on the session or cancel topic, or one that resets (`{"reset": true}`)."""

    reset: bool = False


class InvalidPayloadError(Exception):
    """A payload that is not a request.

    Attributes:
        failure: what to answer.
        envelope: whom to answer, as far as the payload says.
    """

    def __init__(self, failure: Failure, envelope: Envelope | None = None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.envelope = envelope or Envelope()


def decode_object(payload: bytes) -> dict[str, Any] | str:
    """A payload as a JSON object or, where it is none, as plain text.

    Raises:
        InvalidPayloadError: not UTF-8, or a JSON object that cannot be taken in (too deep, lone surrogates).
    """
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        raise InvalidPayloadError(Failure("invalid_request", "The payload is not UTF-8.")) from None
    if not text.lstrip().startswith("{"):
        return text
    try:
        value = from_json(text)
    except ValueError as error:
        for sign, what in _REFUSED_JSON.items():
            if sign in str(error):
                raise InvalidPayloadError(Failure("invalid_request", f"The payload {what}.")) from None
        return text
    return value if isinstance(value, dict) else text


def decode_request(payload: bytes) -> Request | Control:
    """What a payload on a `user_input` topic asks for.

    Raises:
        InvalidPayloadError: with the failure to answer, and whom to answer.
    """
    return decode_fields(decode_object(payload))


def decode_fields(fields: dict[str, Any] | str) -> Request | Control:
    """As `decode_request`, of what `decode_object` has made of the payload."""
    if isinstance(fields, str):
        fields = {"message": fields}
    elif fields.get("reset") is True and fields.keys().isdisjoint({"message", "messages", "toolResults"}):
        return decode_control(fields)
    return _validate(Request, fields)


def decode_control(fields: dict[str, Any] | str) -> Control:
    """What a payload on the session or cancel topic says; plain text and nothing at all say nothing.

    Raises:
        InvalidPayloadError: with the failure to answer, and whom to answer.
    """
    return Control() if isinstance(fields, str) else _validate(Control, fields)


_Model = TypeVar("_Model", bound=Envelope)


def _validate(model: type[_Model], fields: Mapping[str, Any]) -> _Model:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        failure = Failure("invalid_request", _what_is_wrong(error))
        raise InvalidPayloadError(failure, Envelope.salvage(fields)) from None


def _what_is_wrong(error: ValidationError) -> str:
    """One clause for the requester, without the input (it may be long, or not printable)."""
    # In a union every branch complains; the one that got furthest into the value names the real fault.
    worst = max(
        error.errors(include_url=False, include_input=False), key=lambda one: (len(one["loc"]), not is_wrong_type(one))
    )
    # What a request says as a whole names the key that it is about itself.
    steps = [str(step) for step in worst["loc"]] or [worst.get("ctx", {}).get("where", "")]
    where = ".".join(step for step in steps if not step.startswith(_BRANCHES) and step != "str")
    what = wording(worst)
    text = f"{where}: {what}." if where else f"{what.capitalize()}."
    return _CONTROL.sub(" ", text.encode(errors="replace").decode())[:_MAX_DETAIL]
