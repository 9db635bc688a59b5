"""The model of the engine's suites: the demo model, or random weights in the shape of a larger one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inferbus_worker.engines.vllm.arguments import DEMO_PATH

from .plan import Plan
from .programs import gpu
from .shapes import SHAPES, Shape

_TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json")
_CONTEXT: Final = 2048


@dataclass(frozen=True, slots=True)
class Model:
    """What is served, and with which of vLLM's options, the same on every side.

    Attributes:
        title: for the document.
        path: its directory.
        options: of vLLM's command line.
        environment: of the process that runs vLLM.
        max_tokens: of every answer.
    """

    title: str
    path: Path
    options: tuple[str, ...]
    environment: Mapping[str, str]
    max_tokens: int


def prepare(plan: Plan, folder: Path) -> Model:
    """The model that the plan asks for; one with random weights is written to `folder`."""
    on_gpu = gpu() is not None
    options = ["--max-num-seqs", str(max(plan.levels))]
    environment = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    if not on_gpu:
        options += ["--enforce-eager", "--dtype", "float32"]
        environment["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB
    if plan.shape is None:
        return Model("demo model", DEMO_PATH, (*options, *plan.engine_options), environment, 48)
    _write(SHAPES[plan.shape], folder)
    options += ["--load-format", "dummy"]
    title = f"{plan.shape} shape, random weights"
    return Model(title, folder, (*options, *plan.engine_options), environment, 128)


def _write(shape: Shape, folder: Path) -> None:
    for name in _TOKENIZER_FILES:
        shutil.copy(DEMO_PATH / name, folder / name)
    vocabulary = json.loads((DEMO_PATH / "config.json").read_text())["vocab_size"]
    configuration = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "vocab_size": vocabulary,
        "max_position_embeddings": _CONTEXT,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(configuration, indent=2))
