"""The demo model as a GGUF file, for llama.cpp's server.

llama.cpp has the tokenizers of known models only, and the demo's pre-tokenizer, a list of whole words, is none of them.
`llama-bpe` is near: names and numbers become the same tokens. Merges that begin with a space would join what the demo
keeps apart, so they are left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np

from inferbus_worker.engines.vllm.arguments import DEMO_PATH

_SPACE: Final = "Ġ"  # how a byte-level tokenizer writes it
#: Hugging Face's name of a layer's tensor, and GGUF's.
_LAYER: Final = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_demo(path: Path) -> None:
    """Write it to `path`, in float32 as the worker serves it on a CPU."""
    config = json.loads((DEMO_PATH / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "llama")
    _add_shape(writer, config)
    _add_tokenizer(writer)
    for name, tensor in _tensors().items():
        writer.add_tensor(_name(name), _turned(name, tensor, config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_name("demo")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    tokenizer = json.loads((DEMO_PATH / "tokenizer.json").read_text())
    settings = json.loads((DEMO_PATH / "tokenizer_config.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    merges = [" ".join(pair) for pair in tokenizer["model"]["merges"] if not pair[0].startswith(_SPACE)]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(special[settings["eos_token"]])
    writer.add_pad_token_id(special[settings["pad_token"]])
    writer.add_add_bos_token(value=False)
    writer.add_chat_template(settings["chat_template"])


def _tensors() -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """The demo's tensors by name; NumPy knows no bfloat16, which is the upper half of a float32."""
    data = (DEMO_PATH / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (start + offset for offset in entry["data_offsets"])
        halves = np.frombuffer(data[begin:end], dtype="<u2").astype(np.uint32)
        found[name] = (halves << 16).view(np.float32).reshape(entry["shape"])
    return found


def _name(name: str) -> str:
    known = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in known:
        return known[name]
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{_LAYER[rest.removesuffix('.weight')]}.weight"


def _turned(
    name: str, tensor: np.ndarray[Any, np.dtype[np.float32]], config: dict[str, Any]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Queries and keys in llama.cpp's order: it turns neighbours, where Hugging Face turns the two halves of a head."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for part, count in heads.items():
        if part in name:
            rows, columns = tensor.shape
            halves = tensor.reshape(count, 2, rows // count // 2, columns)
            return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))
    return tensor
