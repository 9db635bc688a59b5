"""How a model is to be served, as far as its memory depends on that. Words are vLLM's."""

from __future__ import annotations

from typing import Final, NamedTuple

#: Bytes of a number, by vLLM's words for a type and by what stands in configurations.
DTYPE_BYTES: Final = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2, "float64": 8}
DTYPES: Final = ("auto", "bfloat16", "float16", "half", "float32", "float")
#: The same for the KV cache, in vLLM's words and llama.cpp's; a block of 32 there has a scale.
KV_DTYPES: Final = {
    "auto": None,
    "float16": 2.0,
    "bfloat16": 2.0,
    "fp8": 1.0,
    "fp8_e4m3": 1.0,
    "fp8_e5m2": 1.0,
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
}


class Terms(NamedTuple):
    """How a model is to be served. Words are vLLM's.

    Attributes:
        concurrency: requests at once.
        context_tokens: the longest prompt and answer together; None: as long as the model can.
        dtype: what the model computes in.
        kv_cache_dtype: what the KV cache is kept in.
        quantization: of the weights.
        devices: how many share the model (`--tensor-parallel-size`).
    """

    concurrency: int = 8
    context_tokens: int | None = None
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    quantization: str | None = None
    devices: int = 1
