"""What each kind of server answers, as its documents have it: for `support.stub_backend`.

Written from the servers' documents, not from the worker's table of backends: a slip there must not be repeated here.
A token is a word with the space before it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from support import stub_calls
from support.stub_calls import Called

_WORD: Final = re.compile(r"\s*\S+\s*?(?=\s|$)")

#: What a probe answers: status and body; text as it is, anything else as JSON.
Answered = tuple[int, Any]


class Facts(NamedTuple):
    """What the server has, for its probes."""

    model: str
    context: int
    slots: int
    running: int


class Said(NamedTuple):
    """An answer to be streamed."""

    words: list[str]
    reasoning: list[str]
    finish: str
    prompt_tokens: int
    has_usage: bool
    calls: tuple[Called, ...] = ()


def words(text: str) -> list[str]:
    return _WORD.findall(text)


def completion_path(backend: str) -> str:
    return "/v1/messages" if backend == "anthropic" else "/v1/chat/completions"


def probe(backend: str, path: str, body: Mapping[str, Any], facts: Facts) -> Answered | None:
    """The answer of any endpoint but the completions'; None: there is no such one."""
    found = _PROBES[backend].get(path)
    if found is not None:
        return 200, found(body, facts)
    if path == "/v1/models":
        extra = {"max_model_len": facts.context} if backend == "vllm" else {}
        return 200, {"object": "list", "data": [{"id": facts.model, "object": "model", **extra}]}
    return None


def too_long(backend: str, length: int, context: int) -> Answered:
    """How a server refuses a prompt that does not fit."""
    words_by_backend = {
        "llama.cpp": f"the request exceeds the available context size ({context} tokens), try increasing it",
        "tabbyapi": f"Prompt length {length} is greater than max_seq_len {context}",
        "ollama": f"input length exceeds the context length: {length} > {context}",
        "tgi": f"Input validation error: `inputs` must have less than {context} tokens. Given: {length}",
        "anthropic": f"prompt is too long: {length} tokens > {context} maximum",
    }
    text = words_by_backend.get(backend, f"This model's maximum context length is {context} tokens. However, ...")
    if backend == "tgi":
        return 422, {"error": text, "error_type": "validation"}
    kinds = {"llama.cpp": "exceed_context_size_error", "anthropic": "invalid_request_error"}
    return 400, error_body(backend, 400, text, kinds.get(backend, "BadRequestError"))


def error_body(backend: str, status: int, text: str, kind: str = "error") -> Any:
    """An error in the server's shape."""
    if backend == "anthropic":
        return {"type": "error", "error": {"type": kind, "message": text}}
    if backend == "tgi":
        return {"error": text, "error_type": kind}
    return {"error": {"message": text, "type": kind, "code": status, "param": None}}


def stream(backend: str, said: Said, *, is_native: bool) -> Iterator[bytes]:
    """The pieces of an answer: one before the first token, one for each token, then those of its end, as one."""
    if backend == "anthropic":
        return _anthropic(said)
    return _ollama(said) if is_native else _openai(backend, said)


def stream_error(backend: str, status: int, *, is_native: bool) -> bytes:
    """An error object in a stream that began with 200."""
    if is_native:
        return json.dumps({"error": "an error was encountered while running the model"}).encode() + b"\n"
    kind = "overloaded_error" if status == 529 else "api_error"
    body = error_body(backend, status, "went wrong on the way", kind)
    return _event(body, "error" if backend == "anthropic" else None)


def _openai(backend: str, said: Said) -> Iterator[bytes]:
    def chunk(delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _event({"id": "c", "object": "chat.completion.chunk", "choices": [choice], **more})

    field = "reasoning_content" if backend in {"tabbyapi", "llama.cpp"} else "reasoning"
    yield chunk({"role": "assistant", "content": ""})
    yield from (chunk({field: word}) for word in said.reasoning)
    yield from (chunk({"content": word}) for word in said.words)
    yield from (chunk(delta) for delta in stub_calls.openai(backend, said.calls))
    last = chunk({}, said.finish)
    if said.has_usage:
        completion = len(said.words) + len(said.reasoning)
        usage = {"prompt_tokens": said.prompt_tokens, "completion_tokens": completion}
        last += _event({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": usage})
    yield last + b"data: [DONE]\n\n"


def _anthropic(said: Said) -> Iterator[bytes]:
    def event(kind: str, **more: Any) -> bytes:
        return _event({"type": kind, **more}, kind)

    def delta(kind: str, word: str) -> bytes:
        return event("content_block_delta", index=0, delta={"type": f"{kind}_delta", kind: word})

    usage = {"input_tokens": said.prompt_tokens, "output_tokens": 1} if said.has_usage else {}
    yield event("message_start", message={"id": "m", "role": "assistant", "usage": usage}) + event("ping")
    yield from (delta("thinking", word) for word in said.reasoning)
    yield from (delta("text", word) for word in said.words)
    yield from (event(kind, **more) for kind, more in stub_calls.anthropic(said.calls))
    finish = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}.get(said.finish, "tool_use")
    spent = {"output_tokens": len(said.words) + len(said.reasoning)} if said.has_usage else {}
    end = event("content_block_stop", index=0)
    yield end + event("message_delta", delta={"stop_reason": finish}, usage=spent) + event("message_stop")


def _ollama(said: Said) -> Iterator[bytes]:
    def line(message: Mapping[str, Any], **more: Any) -> bytes:
        return json.dumps({"model": "m", "message": message, "done": False} | more).encode() + b"\n"

    yield b""
    yield from (line({"role": "assistant", "content": "", "thinking": word}) for word in said.reasoning)
    yield from (line({"role": "assistant", "content": word}) for word in said.words)
    yield from (line(message) for message in stub_calls.ollama(said.calls))
    spent = {"prompt_eval_count": said.prompt_tokens, "eval_count": len(said.words) + len(said.reasoning)}
    usage = spent if said.has_usage else {}
    yield line(
        {"role": "assistant", "content": ""}, done=True, done_reason="stop" if said.calls else said.finish, **usage
    )


def _event(data: Any, name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def _tokens(text: str) -> list[int]:
    return list(range(len(words(text))))


_PROBES: Final[Mapping[str, Mapping[str, Any]]] = {
    "vllm": {
        "/health": lambda _, __: "",
        "/metrics": lambda _, facts: (
            "# TYPE vllm:num_requests_running gauge\n"
            f'vllm:num_requests_running{{engine="0",model_name="{facts.model}"}} {facts.running}.0\n'
            f'vllm:cache_config_info{{block_size="16",kv_cache_max_concurrency="{facts.slots}.5"}} 1.0\n'
        ),
        "/tokenize": lambda body, _: {"count": len(_tokens(body["prompt"])), "tokens": _tokens(body["prompt"])},
    },
    "ollama": {
        "/api/version": lambda _, __: {"version": "0.12.0"},
        "/api/ps": lambda _, __: {"models": []},
        "/api/show": lambda _, facts: {
            "parameters": f'stop "x"\nnum_ctx                        {facts.context}',
            "model_info": {"general.architecture": "llama", "llama.context_length": 131072},
        },
    },
    "llama.cpp": {
        "/health": lambda _, __: {"status": "ok"},
        "/props": lambda _, facts: {
            "default_generation_settings": {"n_ctx": facts.context},
            "total_slots": facts.slots,
        },
        "/slots": lambda _, facts: [
            {"id": index, "is_processing": index < facts.running} for index in range(max(facts.slots, facts.running))
        ],
        "/tokenize": lambda body, _: {"tokens": _tokens(body["content"])},
    },
    "tabbyapi": {
        "/health": lambda _, __: {"status": "healthy", "issues": []},
        "/v1/model": lambda _, facts: {
            "id": facts.model,
            "parameters": {"max_seq_len": facts.context, "max_batch_size": facts.slots},
        },
        "/v1/token/encode": lambda body, _: {"tokens": _tokens(body["text"]), "length": len(_tokens(body["text"]))},
    },
    "mlx": {"/health": lambda _, __: {"status": "ok"}},
    "tgi": {
        "/health": lambda _, __: "",
        "/info": lambda _, facts: {
            "model_id": facts.model,
            "max_total_tokens": facts.context,
            "max_concurrent_requests": facts.slots,
        },
        "/metrics": lambda _, facts: f"# TYPE tgi_batch_current_size gauge\ntgi_batch_current_size {facts.running}\n",
        "/tokenize": lambda body, _: [{"id": token, "text": "x"} for token in _tokens(body["inputs"])],
    },
    "openai": {},
    "anthropic": {
        "/v1/models": lambda _, facts: {
            "data": [{"type": "model", "id": facts.model, "max_input_tokens": facts.context}],
            "has_more": False,
        },
        # The frame around a message counts as well.
        "/v1/messages/count_tokens": lambda body, _: {
            "input_tokens": 7 + sum(len(_tokens(each["content"])) for each in body["messages"])
        },
    },
}
