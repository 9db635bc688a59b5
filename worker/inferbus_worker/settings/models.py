"""Models by name, and the slots that serve them: what the file says below `models:`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args
from urllib.parse import urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    model_validator,
)

from inferbus_client.contract.wire.requests import MODEL_NAME
from inferbus_client.units import Duration, Size, Written
from inferbus_worker.settings.masking import STARS, masked, masked_words
from inferbus_worker.settings.vllm_options import VllmOptions

#: The servers across the network that we know how to speak to; what differs between them says `engines.remote`.
Backend = Literal["vllm", "ollama", "llama.cpp", "tabbyapi", "mlx", "tgi", "openai", "anthropic"]
BACKENDS: Final[tuple[Backend, ...]] = get_args(Backend)

_MAX_SLOTS: Final = 64
#: As many as a worker's presence and stats can name: what is larger than an announcement may be, nobody reads.
_MAX_MODELS: Final = 100
_MAX_SLOTS_IN_ALL: Final = 400

_MOST_AT_ONCE: Final = 4096
_LARGEST_PORT: Final = 65_535
#: Bytes; nothing that answers takes less, so that less is a number without its unit.
_LEAST_MEMORY: Final = 1024 * 1024


def _number_or_auto(value: object) -> object:
    if value != "auto" and not (str(value).isdecimal() and 1 <= int(str(value)) <= _MOST_AT_ONCE):
        raise ValueError(f"must be a whole number from 1 to {_MOST_AT_ONCE}, or auto")
    return value


Concurrency = Annotated[int | Literal["auto"], BeforeValidator(_number_or_auto)]


def _check_memory(size: int) -> int:
    if size < _LEAST_MEMORY:
        raise ValueError("must be 1 MiB or more; without a unit a size is in bytes, say it as 6 GiB is said")
    return size


#: What a model takes of the memory, or may.
Memory = Annotated[Size, AfterValidator(_check_memory)]


def check_url(url: str) -> str:
    """That it is an address; the complaint does not repeat it, since a password may stand in it.

    Raises:
        ValueError: it is none.
    """
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
        is_usable = is_usable and (parts.port is None or 0 < parts.port <= _LARGEST_PORT)
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ValueError("must be an address such as http://127.0.0.1:8000, with http:// or https://")
    return url


def _masked_url(url: str) -> str:
    """With stars for who is named in it, and for what is asked."""
    parts = urlsplit(url)
    _, named, host = parts.netloc.rpartition("@")
    shown = parts._replace(netloc=f"{STARS}@{host}" if named else host, query=STARS if parts.query else "", fragment="")
    return urlunsplit(shown)


Url = Annotated[str, AfterValidator(check_url), PlainSerializer(_masked_url, when_used="json")]


def _check_variable(name: str) -> str:
    """The complaint does not repeat it: whoever writes a key there has written down a secret."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("must be the name of an environment variable, such as OPENAI_API_KEY, not the key itself")
    return name


VariableName = Annotated[str, AfterValidator(_check_variable)]


def _masked(variables: dict[str, str]) -> Any:
    return masked(variables)


class Manage(Written):
    """How the worker starts a slot's server itself.

    In `command` and `environment`, `{port}`, `{model}`, `{path}` and `{concurrency}` stand for what the slot has.
    Without a command the backend's usual one is run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    command: Annotated[list[str], PlainSerializer(masked_words, when_used="json")] | None = Field(None, repr=False)
    environment: Annotated[dict[str, str], PlainSerializer(_masked, when_used="json")] = Field(
        default_factory=dict, repr=False
    )
    start_timeout: Annotated[Duration, Field(gt=0)] = 300.0

    @model_validator(mode="after")
    def _is_told_its_port(self) -> Self:
        if self.command is not None and not any(
            "{port}" in said for said in (*self.command, *self.environment.values())
        ):
            raise ValueError("the server gets a port of its own: {port} has to stand in command or environment")
        return self


class SlotSettings(Written):
    """One place that serves a model: an engine in this process, or a server.

    Attributes:
        engine: in this process: vLLM (at most one of all slots) or a simulated one.
        backend: else, which kind of server it is.
        url: where the server listens; its usual address where that is left out.
        model: how the server calls the model; as we do, where that is left out.
        path: the model's files: for vLLM in this process, and for a server that the worker starts.
        concurrency: requests at once; `auto` finds it out between 1 and the backend's natural number, which holds
            where nothing is said.
        options: vLLM's options (in this process, or when the server is started), else what goes into each request.
        api_key_env: the environment variable that holds the key.
        api_key_file: or the file.
        context: the longest prompt and answer in tokens, where the backend does not tell.
        memory: what it takes of the host's memory, for `memory_budget`.
        manage: how the worker starts the server; `path` alone is enough where the backend's usual command will do.
        when: whether such a server is always there, or started when its model is asked for.
        idle_stop: how long it may idle before it is stopped, if started on demand.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    engine: Literal["vllm", "simulated"] | None = None
    backend: Backend | None = None
    url: Url | None = Field(None, repr=False)
    model: str | None = None
    path: str | None = None
    concurrency: Concurrency | None = None
    options: VllmOptions = Field(default_factory=dict, repr=False)
    api_key_env: VariableName | None = None
    api_key_file: Path | None = None
    context: Annotated[int, Field(ge=16)] | None = None
    memory: Memory | None = None
    manage: Manage | None = None
    when: Literal["always", "on-demand"] = "always"
    idle_stop: Annotated[Duration, Field(gt=0)] = 600.0
    first_token: Duration = 0.0
    per_token: Duration = 0.0
    capacity: Annotated[int, Field(ge=1)] = 256
    failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.0

    @property
    def is_managed(self) -> bool:
        """Whether the worker starts the server itself."""
        return self.backend is not None and (self.manage is not None or self.path is not None)

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        _check_place(self)
        return self


#: Keys of a slot that mean nothing in another kind of slot: the kind, and its name.
_ONLY_FOR: Final[Mapping[str, tuple[Any, str]]] = {
    **dict.fromkeys(
        ("url", "api_key_env", "api_key_file", "context", "model", "manage"),
        (lambda slot: slot.backend is not None, "a backend"),
    ),
    **dict.fromkeys(
        ("first_token", "per_token", "capacity", "failure_rate"),
        (lambda slot: slot.engine == "simulated", "engine: simulated"),
    ),
    **dict.fromkeys(("path", "options"), (lambda slot: slot.engine != "simulated", "a backend or engine: vllm")),
    **dict.fromkeys(
        ("when", "idle_stop"), (lambda slot: slot.is_managed, "a server that the worker starts (manage or path)")
    ),
}


def _check_place(slot: SlotSettings) -> None:
    if (slot.engine is None) == (slot.backend is None):
        raise ValueError("a slot has an engine (vllm, simulated) or a backend: say one of the two")
    for name in sorted(slot.model_fields_set & _ONLY_FOR.keys()):
        holds, needed = _ONLY_FOR[name]
        if not holds(slot):
            raise ValueError(f"{name} has no meaning without {needed}")
    if slot.engine == "vllm" and slot.path is None:
        raise ValueError("engine: vllm needs a path: a folder, a model's name on the hub, or demo")
    if slot.is_managed and slot.url is not None:
        raise ValueError("a server that the worker starts gets a port of its own: leave the url out")
    if slot.is_managed and slot.backend in {"openai", "anthropic"}:
        raise ValueError(f"there is no server of {slot.backend}'s to start: leave manage and path out")
    if slot.api_key_env is not None and slot.api_key_file is not None:
        raise ValueError("say api_key_env or api_key_file, not both")


class SlotRange(Written):
    """How many servers of one kind the worker starts for a model: as many as its queue asks for and memory allows."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    min: Annotated[int, Field(ge=0, le=_MAX_SLOTS)] = 0
    max: Annotated[int, Field(ge=1, le=_MAX_SLOTS)] = 1

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min > self.max:
            raise ValueError("min must be max or less")
        return self


def _branch(value: object) -> str:
    return "range" if isinstance(value, Mapping | SlotRange) else "list"


_Slots = Annotated[
    Annotated[list[SlotSettings], Field(min_length=1, max_length=_MAX_SLOTS), Tag("list")]
    | Annotated[SlotRange, Tag("range")],
    Discriminator(_branch),
]


class ModelSettings(SlotSettings):
    """One model: its only slot, written at its own place; or several of them, as a list or as a range of like ones.

    Attributes:
        slots: the list, or the range.
        fallback: models that answer in its place while none of its slots can, in this order.
        elsewhere: it has no slot here, since another worker of the group serves it; its requests are taken in here too.
    """

    slots: _Slots | None = None
    fallback: list[str] = Field(default_factory=list)
    elsewhere: bool = False

    @property
    def places(self) -> list[SlotSettings]:
        """Its slots, as many as there may be."""
        if self.elsewhere:
            return []
        if isinstance(self.slots, list):
            return self.slots
        own = self.model_fields_set & SlotSettings.model_fields.keys()
        one = SlotSettings.model_validate({name: getattr(self, name) for name in own})
        return [one] * (1 if self.slots is None else self.slots.max)

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:  # in the place of a slot's own
        if self.elsewhere:
            said = sorted(self.model_fields_set - {"elsewhere", "fallback"})
            if said:
                raise ValueError(f"{said[0]} is for a model with a slot here, and this one is elsewhere")
            return self
        if isinstance(self.slots, list):
            doubled = sorted(self.model_fields_set & SlotSettings.model_fields.keys())
            if doubled:
                raise ValueError(f"{doubled[0]} belongs into each of the slots, where they are listed")
            return self
        _check_place(self)
        if isinstance(self.slots, SlotRange) and not self.is_managed:
            raise ValueError("slots with min and max need a server that the worker starts (manage or path)")
        return self


def _check_models(models: dict[str, ModelSettings]) -> dict[str, ModelSettings]:
    for name, model in models.items():
        if MODEL_NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no model's name: it must match {MODEL_NAME.pattern}")
        for other in model.fallback:
            if other not in models:
                raise ValueError(f"{name}.fallback: there is no model {other} here")
            if other == name:
                raise ValueError(f"{name}.fallback: a model cannot stand in for itself")
    inner = [name for name, model in models.items() for slot in model.places if slot.engine == "vllm"]
    in_all = sum(len(model.places) for model in models.values())
    if in_all > _MAX_SLOTS_IN_ALL:
        raise ValueError(f"{in_all} slots are more than a worker can tell of, which is {_MAX_SLOTS_IN_ALL} in all")
    if len(inner) > 1:
        raise ValueError(
            f"{' and '.join(inner)}: one engine of vLLM's fits into this process; make the others backend: vllm"
        )
    return models


Models = Annotated[
    dict[str, Annotated[ModelSettings, BeforeValidator(lambda value: {} if value is None else value)]],
    Field(max_length=_MAX_MODELS),
    AfterValidator(_check_models),
]
