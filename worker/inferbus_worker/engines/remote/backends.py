"""Everything that differs between the servers that we speak to, in one table: a ninth is one row more, and a test.

What a row says was read in the servers' own documents and sources; the README says which were tried for real.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from inferbus_worker.settings.models import Backend

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
class ManagedServer:
    """How the worker starts such a server itself; `{port}`, `{model}`, `{path}`, `{concurrency}` are filled in."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


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
        models: where it lists what it serves; the names are `data[].id`. None: it cannot be asked.
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
    keeps_connections: bool = True
    managed: ManagedServer | None = None


def figure(value: object) -> int | None:
    """A server's figure, or None where it is none: not a number, not a whole one, negative or absurd."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if 0 <= value <= LARGEST_FIGURE else None


def _at(*path: str) -> Callable[[Any, str], object]:
    def read(answer: Any, _: str) -> object:
        for name in path:
            answer = answer[name]
        return answer

    return read


def _length(*path: str) -> Callable[[Any, str], int]:
    def read(answer: Any, model: str) -> int:
        found = _at(*path)(answer, model)
        if not isinstance(found, list):
            raise TypeError
        return len(found)

    return read


def _of_model(*path: str) -> Callable[[Any, str], object]:
    """Of the list `data`, the entry with the model's name, and there the figure at `path`."""

    def read(answer: Any, model: str) -> object:
        return next((_at(*path)(one, model) for one in answer["data"] if one["id"] == model), None)

    return read


def _sample(name: str) -> Callable[[Any, str], float]:
    """The sum of a gauge's samples in Prometheus's text."""
    line = re.compile(rf"^{re.escape(name)}(?:\{{[^\n]*\}})? (\S+)$", re.MULTILINE)

    def read(answer: Any, _: str) -> float:
        found = line.findall(answer)
        if not found:
            raise LookupError(name)
        return math.fsum(map(float, found))

    return read


def _kv_concurrency(answer: Any, _: str) -> float:
    """How many of the longest requests fit into vLLM's KV cache, which is a label of its configuration."""
    return float(
        re.findall(r'^vllm:cache_config_info\{[^\n]*kv_cache_max_concurrency="([^"\n]+)"', answer, re.MULTILINE)[0]
    )


def _ollama_shown(answer: Any, _: str) -> int:
    """What a model is loaded with: its own `num_ctx`, else no more than Ollama's default of 4,096."""
    own = re.search(r"^num_ctx\s+(\d{1,9})$", answer.get("parameters") or "", re.MULTILINE)
    if own is not None:
        return int(own[1])
    told = (value for name, value in answer["model_info"].items() if name.endswith(".context_length"))
    return min(int(next(told, _OLLAMA_CONTEXT)), _OLLAMA_CONTEXT)


def _ollama_loaded(answer: Any, model: str) -> object:
    names = {model, f"{model}:latest"}
    return next((one["context_length"] for one in answer["models"] if one["name"] in names), None)


_OLLAMA_CONTEXT: Final = 4096
#: Its list has pages.
_ALL_OF_ANTHROPICS: Final = "/v1/models?limit=1000"
_NO_THINKING: Final = MappingProxyType({"chat_template_kwargs": {"enable_thinking": False, "thinking": False}})
_PENALTIES: Final = ("presence_penalty", "frequency_penalty")
_SAMPLERS: Final = ("stop", "seed", "top_k", "min_p", *_PENALTIES)


def _as_they_are(*names: str, **renamed: str) -> Mapping[str, str]:
    return MappingProxyType({name: name for name in names} | renamed)


BACKENDS: Final[Mapping[Backend, BackendRow]] = MappingProxyType(
    {
        "vllm": BackendRow(
            "vLLM",
            "http://127.0.0.1:8000",
            "openai",
            256,
            context=(Told("/v1/models", _of_model("max_model_len")),),
            capacity=Told("/metrics", _kv_concurrency),
            busy=Told("/metrics", _sample("vllm:num_requests_running")),
            tokenizer=Tokenizer(
                "/tokenize",
                lambda model, text: {"model": model, "prompt": text, "add_special_tokens": False},
                _at("count"),
            ),
            max_tokens="max_completion_tokens",
            parameters=_as_they_are(*_SAMPLERS, "repetition_penalty"),
            no_thinking=_NO_THINKING,
            cache_salt=True,
            managed=ManagedServer(
                (
                    *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", "{path}"),
                    *("--served-model-name", "{model}", "--host", "127.0.0.1", "--port", "{port}"),
                    *("--max-num-seqs", "{concurrency}"),
                )
            ),
        ),
        "ollama": BackendRow(
            "Ollama",
            "http://127.0.0.1:11434",
            "ollama",
            4,
            health="/api/version",
            context=(
                Told("/api/ps", _ollama_loaded),
                Told("/api/show", _ollama_shown, lambda model: {"model": model}),
            ),
            default_context=_OLLAMA_CONTEXT,
            # The rest goes through its own endpoint, see `ollama_shape`.
            parameters=_as_they_are("stop", "seed", *_PENALTIES),
            no_thinking=MappingProxyType({"reasoning_effort": "none"}),
            managed=ManagedServer(
                ("ollama", "serve"),
                MappingProxyType({"OLLAMA_HOST": "127.0.0.1:{port}", "OLLAMA_NUM_PARALLEL": "{concurrency}"}),
            ),
        ),
        "llama.cpp": BackendRow(
            "llama.cpp",
            "http://127.0.0.1:8080",
            "openai",
            1,
            one_model=True,
            context=(Told("/props", _at("default_generation_settings", "n_ctx")),),
            capacity=Told("/props", _at("total_slots")),
            busy=Told("/slots", lambda slots, _: sum(slot["is_processing"] is True for slot in slots)),
            tokenizer=Tokenizer(
                "/tokenize", lambda _, text: {"content": text, "add_special": False}, _length("tokens")
            ),
            reasoning="reasoning_content",
            parameters=_as_they_are(*_SAMPLERS, repetition_penalty="repeat_penalty"),
            no_thinking=_NO_THINKING,
            # 6 of 20 streams one after the other on a kept connection end with "Server disconnected".
            keeps_connections=False,
            managed=ManagedServer(
                (
                    *("llama-server", "--model", "{path}", "--alias", "{model}", "--host", "127.0.0.1"),
                    # With the usual few, whoever asks while all slots are busy waits for a connection, not for a slot.
                    *("--port", "{port}", "--parallel", "{concurrency}", "--threads-http", "64", "--slots"),
                )
            ),
        ),
        "tabbyapi": BackendRow(
            "TabbyAPI",
            "http://127.0.0.1:5000",
            "openai",
            1,
            one_model=True,
            context=(Told("/v1/model", _at("parameters", "max_seq_len")),),
            capacity=Told("/v1/model", _at("parameters", "max_batch_size")),
            tokenizer=Tokenizer(
                "/v1/token/encode", lambda _, text: {"text": text, "add_bos_token": False}, _at("length")
            ),
            reasoning="reasoning_content",
            parameters=_as_they_are("stop", "top_k", "min_p", *_PENALTIES, "repetition_penalty"),
            form="schema",
            no_thinking=MappingProxyType({"template_vars": {"enable_thinking": False, "thinking": False}}),
            managed=ManagedServer(
                (
                    *(sys.executable, "main.py", "--host", "127.0.0.1", "--port", "{port}", "--model-name", "{model}"),
                    *("--max-batch-size", "{concurrency}", "--disable-auth", "true"),
                )
            ),
        ),
        "mlx": BackendRow(
            "MLX",
            "http://127.0.0.1:8080",
            "openai",
            1,
            # It says that it is well while the thread that generates is dead: what a request needs is seen by a probe.
            # Its list holds whatever the hub's cache has, and breaks off where there is no cache; another name than its
            # own makes it load that.
            models=None,
            one_model=True,
            unnamed="default_model",
            parameters=_as_they_are(*_SAMPLERS, "repetition_penalty"),
            form=None,
            images=False,
            no_thinking=_NO_THINKING,
            managed=ManagedServer(
                (
                    *(sys.executable, "-m", "mlx_lm", "server", "--model", "{path}", "--host", "127.0.0.1"),
                    *("--port", "{port}", "--decode-concurrency", "{concurrency}"),
                ),
                MappingProxyType({"HF_HUB_OFFLINE": "1"}),
            ),
        ),
        "tgi": BackendRow(
            "TGI",
            "http://127.0.0.1:3000",
            "openai",
            1,
            one_model=True,
            unnamed="tgi",
            context=(Told("/info", _at("max_total_tokens")),),
            capacity=Told("/info", _at("max_concurrent_requests")),
            busy=Told("/metrics", _sample("tgi_batch_current_size")),
            tokenizer=Tokenizer(
                "/tokenize",
                lambda _, text: {"inputs": text, "add_special_tokens": False},
                _length(),
            ),
            clamps=False,
            omits_top_p=True,
            parameters=_as_they_are("stop", "seed", *_PENALTIES),
            managed=ManagedServer(
                (
                    *("text-generation-launcher", "--model-id", "{path}", "--hostname", "127.0.0.1"),
                    *("--port", "{port}", "--max-concurrent-requests", "{concurrency}"),
                )
            ),
        ),
        "openai": BackendRow(
            "OpenAI's API",
            "https://api.openai.com",
            "openai",
            1,
            health=None,
            default_context=128_000,
            max_tokens="max_completion_tokens",
            clamps=False,
            parameters=_as_they_are("stop", "seed", *_PENALTIES),
        ),
        "anthropic": BackendRow(
            "Anthropic's API",
            "https://api.anthropic.com",
            "anthropic",
            1,
            health=None,
            models=_ALL_OF_ANTHROPICS,
            context=(
                Told(_ALL_OF_ANTHROPICS, _of_model("max_input_tokens")),
                # vLLM's server speaks this shape too.
                Told(_ALL_OF_ANTHROPICS, _of_model("max_model_len")),
            ),
            default_context=200_000,
            tokenizer=Tokenizer(
                "/v1/messages/count_tokens",
                lambda model, text: {"model": model, "messages": [{"role": "user", "content": text}]},
                _at("input_tokens"),
                has_frame=True,
            ),
            clamps=False,
            omits_top_p=True,
            parameters=_as_they_are("top_k", stop="stop_sequences"),
            form="anthropic",
            no_thinking=MappingProxyType({"thinking": {"type": "disabled"}}),
        ),
    }
)
