"""Folders that look like models: configurations, and safetensors files with true headers and no weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_BYTES: Final = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I32": 4, "U8": 1}
_COMMON: Final = {
    "vocab_size": 8192,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
    "hidden_act": "silu",
}
#: 120 million parameters, a head of keys and values for three of queries, and a head size that is said.
GROUPED: Final[dict[str, Any]] = _COMMON | {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "intermediate_size": 2560,
    "num_hidden_layers": 12,
    "num_key_value_heads": 4,
    "head_dim": 128,
}
#: 100 million parameters, keys and values compressed as in DeepSeek's models.
LATENT: Final[dict[str, Any]] = _COMMON | {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "intermediate_size": 3072,
    "num_hidden_layers": 8,
    "num_key_value_heads": 12,
    "first_k_dense_replace": 8,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
}


def write_model(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Sequence[int]] | None = None) -> Path:
    """A model's folder; its tensors in bfloat16 are those that the configuration asks for, unless others are given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_tensors(folder / "model.safetensors", tensors_of(config) if tensors is None else tensors)
    return folder


def write_tensors(file: Path, tensors: Mapping[str, Sequence[int]], dtype: str = "BF16") -> None:
    header, end = {}, 0
    for name, shape in tensors.items():
        begin, end = end, end + math.prod(shape) * _BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    write_header(file, json.dumps(header).encode(), end)


def write_header(file: Path, header: bytes, room: int = 0) -> None:
    """A file of that header, and so many bytes of nothing, which take no room on the disk."""
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with file.open("r+b") as opened:
        opened.truncate(8 + len(header) + room)


def tensors_of(config: Mapping[str, Any]) -> dict[str, Sequence[int]]:
    hidden, heads, inner = config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]
    if "kv_lora_rank" in config:
        latent, turned, plain = config["kv_lora_rank"], config["qk_rope_head_dim"], config["qk_nope_head_dim"]
        attention = {
            "q_proj": (heads * (plain + turned), hidden),
            "kv_a_proj_with_mqa": (latent + turned, hidden),
            "kv_a_layernorm": (latent,),
            "kv_b_proj": (heads * (plain + config["v_head_dim"]), latent),
            "o_proj": (hidden, heads * config["v_head_dim"]),
        }
    else:
        size = config.get("head_dim", hidden // heads)
        kept = config.get("num_key_value_heads", heads) * size
        attention = {
            "q_proj": (heads * size, hidden),
            "k_proj": (kept, hidden),
            "v_proj": (kept, hidden),
            "o_proj": (hidden, heads * size),
        }
    layer: dict[str, Sequence[int]] = {f"self_attn.{name}": shape for name, shape in attention.items()}
    layer |= {"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}
    layer |= {"input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)}
    tensors: dict[str, Sequence[int]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for number in range(config["num_hidden_layers"]):
        tensors |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = (config["vocab_size"], hidden)
    return tensors | {"model.norm.weight": (hidden,)}
