"""What a row of the table of backends says of one kind of server."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

#: No context, batch or count of tokens that a server tells is larger; what is, is no figure.
LARGEST_FIGURE: Final = 10**9


@dataclass(frozen=True, slots=True)
class Told:
    """A figure that a server tells.

    Attributes:
        path: where, below the server's address.
        read: the figure in the answer, JSON where it is that, else text; the second argument is the model's name there.
            None where there is none; it may raise `LookupError`, `TypeError` or `ValueError` just as well.
        asks: what is posted, of the model's name; None: it is a GET.
    """

    path: str
    read: Callable[[Any, str], object]
    asks: Callable[[str], Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """An endpoint that counts tokens: what is posted (of the model's name and a text), and how the answer is read."""

    path: str
    asks: Callable[[str, str], Mapping[str, Any]]
    read: Callable[[Any, str], object]
    #: It counts a message with what stands around it, which is asked for once and taken off.
    has_frame: bool = False


@dataclass(frozen=True, slots=True)
class Launch:
    """How the worker starts such a server itself; `managed.commands` fills the places `{…}` in.

    Attributes:
        command: its words, with spaces between them; `{python}` is our own interpreter, `{home}` is what `home` names,
            `{model_folder}` and `{model_name}` are the path's two parts.
        remedy: where the program comes from, for when there is none.
        environment: what goes into its environment.
        environment_of_files: and what besides, where `path` is there on this machine.
        home: the variable that names the folder with the program, where no PATH leads to it.
        with_context: words for a longest prompt and answer, `{context}`, or `{context_in_all}` of all requests at once.
        without_key: words for a server that is to ask for no key.
        serves_as: how the server calls its model, where our name for it cannot be told to it.
        takes_options: whether a slot's options are flags of the server's; else they go into each request.
        reads_folders: whether `path` is a folder in Hugging Face's form, as the demo model is.
        needs_path: whether it has to be told where its model is; else `path` is a name that the server knows.
    """

    command: str
    remedy: str
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_of_files: Mapping[str, str] = field(default_factory=dict)
    home: str = ""
    with_context: str = ""
    without_key: str = ""
    serves_as: str = "{model}"
    takes_options: bool = False
    reads_folders: bool = True
    needs_path: bool = True


@dataclass(frozen=True, slots=True)
class BackendRow:
    """One kind of server.

    Attributes:
        label: as people call it.
        url: where it listens usually.
        shape: whose chat completions it speaks: OpenAI's, Anthropic's; `ollama` is OpenAI's or, with options, its own.
        concurrency: requests at once that come naturally to it.
        base: what precedes the shape's own paths; also taken off an address that ends with it.
        health: where it says that it is well; None: only a real answer tells.
        models: where it lists what it serves; the names are `data[].id`. None: it is not asked, and `unnamed` is said.
        one_model: it answers with the model that it has, whatever name is asked for.
        unnamed: what to ask for where no name was given; None: the first that it lists.
        context: where it tells the longest prompt and answer, the first that does.
        default_context: what holds where nobody says.
        capacity: where it tells how many requests it takes at once.
        busy: where it tells how many it has under way: whether a slot is free after a cancel.
        tokenizer: where it counts tokens.
        reasoning: the field in which it streams a model's reasoning.
        usage_option: whether it is asked for the usage by `stream_options`.
        max_tokens: what it calls the bound of an answer.
        clamps: it cuts that bound to what the prompt leaves; others refuse it.
        omits_top_p: it refuses a `top_p` of 1, or one beside a temperature.
        parameters: what it takes of the requesters' parameters, and how it calls them.
        form: how it takes a `response_format`: as it is, as a bare schema, as Anthropic's, or not at all.
        images: whether it takes any; whether the model does, it says itself.
        no_thinking: what keeps a reasoning model from thinking, in the request.
        cache_salt: whether it takes one.
        tools: which choice it heeds: of a certain tool, of any, or none but the model's own.
        keeps_connections: whether a connection can be used again; llama.cpp's fail now and then.
        managed: how the worker starts one; None: nobody can.
    """

    label: str
    url: str
    shape: Literal["openai", "anthropic", "ollama"]
    concurrency: int
    base: str = "/v1"
    health: str | None = "/health"
    models: str | None = "/v1/models"
    one_model: bool = False
    unnamed: str | None = None
    context: tuple[Told, ...] = ()
    default_context: int = 4096
    capacity: Told | None = None
    busy: Told | None = None
    tokenizer: Tokenizer | None = None
    reasoning: str = "reasoning"
    usage_option: bool = True
    max_tokens: str = "max_tokens"
    clamps: bool = True
    omits_top_p: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)
    form: Literal["openai", "schema", "anthropic"] | None = "openai"
    images: bool = True
    no_thinking: Mapping[str, Any] = field(default_factory=dict)
    cache_salt: bool = False
    tools: Literal["named", "required", "auto"] = "required"
    keeps_connections: bool = True
    managed: Launch | None = None


def figure(value: object) -> int | None:
    """A server's figure, or None where it is none: not a number, not a whole one, negative or absurd."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if 0 <= value <= LARGEST_FIGURE else None
