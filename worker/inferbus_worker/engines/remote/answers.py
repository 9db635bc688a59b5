"""How the figures in the answers of each server are read, see `row.Told`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

#: What Ollama loads a model with that says nothing of its own.
OLLAMA_CONTEXT: Final = 4096


def at(*path: str) -> Callable[[Any, str], object]:
    def read(answer: Any, _: str) -> object:
        for name in path:
            answer = answer[name]
        return answer

    return read


def length(*path: str) -> Callable[[Any, str], int]:
    def read(answer: Any, model: str) -> int:
        found = at(*path)(answer, model)
        if not isinstance(found, list):
            raise TypeError
        return len(found)

    return read


def of_model(*path: str) -> Callable[[Any, str], object]:
    """Of the list `data`, the entry with the model's name, and there the figure at `path`."""

    def read(answer: Any, model: str) -> object:
        return next((at(*path)(one, model) for one in answer["data"] if one["id"] == model), None)

    return read


def sample(name: str) -> Callable[[Any, str], float]:
    """The sum of a gauge's samples in Prometheus's text."""
    line = re.compile(rf"^{re.escape(name)}(?:\{{[^\n]*\}})? (\S+)$", re.MULTILINE)

    def read(answer: Any, _: str) -> float:
        found = line.findall(answer)
        if not found:
            raise LookupError(name)
        return math.fsum(map(float, found))

    return read


def kv_concurrency(answer: Any, _: str) -> float:
    """How many of the longest requests fit into vLLM's KV cache, which is a label of its configuration."""
    return float(
        re.findall(r'^vllm:cache_config_info\{[^\n]*kv_cache_max_concurrency="([^"\n]+)"', answer, re.MULTILINE)[0]
    )


def ollama_shown(answer: Any, _: str) -> int:
    """What a model is loaded with: its own `num_ctx`, else no more than Ollama's default of 4,096."""
    own = re.search(r"^num_ctx\s+(\d{1,9})$", answer.get("parameters") or "", re.MULTILINE)
    if own is not None:
        return int(own[1])
    told = (value for name, value in answer["model_info"].items() if name.endswith(".context_length"))
    return min(int(next(told, OLLAMA_CONTEXT)), OLLAMA_CONTEXT)


def ollama_loaded(answer: Any, model: str) -> object:
    names = {model, f"{model}:latest"}
    return next((one["context_length"] for one in answer["models"] if one["name"] in names), None)
