"""What of a model's configuration the KV cache depends on: its layers, and what each keeps of a token.

Names are those of Hugging Face's configurations. Whoever knows another architecture adds its words here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from inferbus_worker.engines.estimate.strangers import count, first_count, word

_MAX_LAYERS: Final = 10_000
_TEXT: Final = ("text_config", "llm_config", "language_config", "thinker_config")
_LAYERS: Final = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS: Final = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KV_HEADS: Final = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups")
_HIDDEN: Final = ("hidden_size", "n_embd", "d_model", "model_dim")
_CONTEXT: Final = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
#: One head for all queries, unless they are of the later kind (Falcon) that says how many.
_ONE_HEAD: Final = ("multi_query", "use_mqa")
#: Compressed keys and values of which the engine all the same keeps the long form.
_UNCOMPRESSED: Final = frozenset({"minicpm3"})
#: How configurations call a layer that keeps a state of one size, however long the text.
_STATE: Final = frozenset({"linear_attention", "mamba", "mamba2", "ssm", "conv", "recurrent", "gated_deltanet"})
_NO_ATTENTION: Final = frozenset({"mamba", "mamba2", "falcon_mamba", "rwkv"})
_WINDOWED: Final = frozenset({"sliding_attention", "chunked_attention", "sliding_window", "local", "local_attention"})


class Layer(NamedTuple):
    """What one layer keeps of each token.

    Attributes:
        heads: of keys and values; devices that share the model share these, but have one each at least.
        values: numbers for one head, keys and values together.
        window: how many tokens back it looks; None: all.
    """

    heads: int
    values: int
    window: int | None = None


class Shape(NamedTuple):
    """A model's.

    Attributes:
        architecture: its own name for itself.
        layers: those that keep keys and values; None where the configuration does not say.
        states: how many layers keep a state of one size instead.
        depth: how many layers there are in all.
        context: the longest prompt and answer in tokens, where it says so.
        dtype: what it computes in.
        tied: whether its last layer is the first one's table.
        width: of a layer, and how many tokens it knows; 0 where it does not say. What comes on top depends on them.
    """

    architecture: str | None
    layers: tuple[Layer, ...] | None
    states: int = 0
    depth: int | None = None
    context: int | None = None
    dtype: str | None = None
    tied: bool = False
    width: int = 0
    vocabulary: int = 0


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape that a config.json describes."""
    text = next((part for name in _TEXT if isinstance(part := config.get(name), dict)), config)
    named = config.get("architectures")
    architecture = word(named[0] if isinstance(named, list) and named else config.get("model_type"))
    depth = first_count(text, *_LAYERS)
    kinds = None if depth is None or depth > _MAX_LAYERS else _kinds(text, depth)
    layer = _layer(text)
    kept = [] if kinds is None else [kind for kind in kinds if kind != "state"]
    layers = None
    if kinds is not None and (layer is not None or not kept):
        window = first_count(text, "sliding_window", "attention_chunk_size")
        layers = tuple(
            layer._replace(window=window if kind == "windowed" else None) for kind in kept if layer is not None
        )
        layers = layers[: len(layers) - min(len(layers), count(text.get("num_kv_shared_layers")) or 0)]
    return Shape(
        architecture,
        layers,
        states=0 if kinds is None else kinds.count("state"),
        depth=depth,
        context=first_count(text, *_CONTEXT),
        dtype=word(text.get("dtype") or text.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype")),
        tied=(config.get("tie_word_embeddings") or text.get("tie_word_embeddings")) is True,
        width=first_count(text, *_HIDDEN) or 0,
        vocabulary=first_count(text, "vocab_size") or 0,
    )


def _layer(text: Mapping[str, Any]) -> Layer | None:
    """One layer of those that keep keys and values; they are alike in all models but a few."""
    latent, turned = first_count(text, "kv_lora_rank"), first_count(text, "qk_rope_head_dim")
    if latent is not None and turned is not None:
        if word(text.get("model_type")) not in _UNCOMPRESSED:
            return Layer(1, latent + turned)
        heads, plain = first_count(text, *_HEADS), count(text.get("qk_nope_head_dim"))
        return None if heads is None or plain is None else Layer(heads, 2 * (plain + turned))
    heads, hidden = first_count(text, *_HEADS), first_count(text, *_HIDDEN)
    size = first_count(text, "head_dim") or (None if heads is None or hidden is None else hidden // heads)
    kv_heads = _kv_heads(text, heads)
    if size is None or kv_heads is None:
        return None
    return Layer(kv_heads, size + (first_count(text, "v_head_dim") or size))


def _kv_heads(text: Mapping[str, Any], heads: int | None) -> int | None:
    later = text.get("new_decoder_architecture") is True
    if not later and any(text.get(name) is True for name in _ONE_HEAD):
        return first_count(text, "multi_query_group_num") or 1
    nested = text.get("attn_config")
    return (
        first_count(text, *_KV_HEADS)
        or (first_count(nested, "kv_n_heads") if isinstance(nested, dict) else None)
        or heads
    )


def _kinds(text: Mapping[str, Any], depth: int) -> list[str]:
    """For each layer `full`, `windowed` or `state`; a layer of a kind that nobody here knows counts as full."""
    named = text.get("layer_types") or text.get("layers_block_type")
    if isinstance(named, list) and len(named) == depth:
        return [_kind(each) for each in named]
    pattern = text.get("hybrid_override_pattern")
    if isinstance(pattern, str) and len(pattern) == depth:  # `-` is a layer without attention: it keeps nothing
        return [{"*": "full", "M": "state"}.get(each, "none") for each in pattern if each in "*M"]
    every = first_count(text, "full_attention_interval", "attn_layer_period")
    if every is not None:
        offset = count(text.get("attn_layer_offset"))
        chosen = (every - 1 if offset is None else offset) % every
        return ["full" if number % every == chosen else "state" for number in range(depth)]
    if word(text.get("model_type")) in _NO_ATTENTION:
        return ["state"] * depth
    return _windows(text, depth)


def _windows(text: Mapping[str, Any], depth: int) -> list[str]:
    if first_count(text, "sliding_window") is None or text.get("use_sliding_window") is False:
        return ["full"] * depth
    every = first_count(text, "sliding_window_pattern", "_sliding_window_pattern")
    if every is None:
        return ["windowed"] * depth
    return ["full" if (number + 1) % every == 0 else "windowed" for number in range(depth)]


def _kind(named: object) -> str:
    said = word(named)
    if said in _STATE:
        return "state"
    return "windowed" if said in _WINDOWED else "full"
