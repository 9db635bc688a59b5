"""The reckoning: weights, KV cache and what comes on top, for a model and the way in which it is to be served."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from inferbus_worker.engines.estimate import gguf_file, places
from inferbus_worker.engines.estimate.loading import keeps_fp8, loaded_bytes, other_weights, served_in
from inferbus_worker.engines.estimate.shape import Shape, shape_of
from inferbus_worker.engines.estimate.strangers import read_object
from inferbus_worker.engines.estimate.terms import KV_DTYPES, Terms
from inferbus_worker.engines.estimate.weights import tensors_in

#: What an engine's process takes before any model: Python, PyTorch, a CUDA context.
_PROCESS: Final = 600 * 2**20
#: Tokens that vLLM computes in one step unless it is told otherwise, and how often a layer's width it needs for each.
_STEP: Final = 2048
_WIDTHS: Final = 16


@dataclass(frozen=True)
class Estimate:
    """What a model takes, in bytes on each device. What could not be known is None.

    Attributes:
        model: as it was named.
        architecture: its own name for itself.
        terms: how it is served.
        context_tokens: the longest prompt and answer together.
        weights_bytes: of the weights.
        kv_bytes_per_token: of the KV cache, for one token of one request.
        kv_bytes_least: of the KV cache, for the longest request, if layers that look back a little keep no more.
        overhead_bytes: what comes on top: a guess, not a reckoning.
        remarks: sentences on what was not known, and what was left out.
    """

    model: str
    architecture: str | None
    terms: Terms
    context_tokens: int | None
    weights_bytes: int
    kv_bytes_per_token: int | None
    kv_bytes_least: int | None
    overhead_bytes: int
    remarks: tuple[str, ...] = ()

    @property
    def kv_bytes_per_request(self) -> int | None:
        """For a request of the greatest length."""
        if self.kv_bytes_per_token is None or self.context_tokens is None:
            return None
        return self.kv_bytes_per_token * self.context_tokens

    @property
    def kv_bytes(self) -> int | None:
        """For as many requests of the greatest length as there may be at once."""
        one = self.kv_bytes_per_request
        return None if one is None else one * self.terms.concurrency

    @property
    def total_bytes(self) -> int:
        """All of it that is known."""
        return self.weights_bytes + (self.kv_bytes or 0) + self.overhead_bytes

    def requests_in(self, memory_bytes: int) -> int | None:
        """How many requests of the greatest length fit into a device's memory; None where that is not known."""
        one = self.kv_bytes_per_request
        if not one:
            return None
        return max(0, memory_bytes - self.weights_bytes - self.overhead_bytes) // one


def fits(estimate: Estimate, memory_bytes: int) -> bool:
    """Whether the model could run in `memory_bytes` at all. Where this is False it never will.

    Counted are the weights and one request of the greatest length, without anything that is a guess.
    """
    return estimate.weights_bytes + (estimate.kv_bytes_least or 0) <= memory_bytes


def estimate(model: str, terms: Terms | None = None) -> Estimate:
    """Reckon what `model` takes: a folder, a GGUF file, `demo`, or a model in the hub's cache.

    Raises:
        NoEstimateError: there is no such model here, or its files cannot be read.
    """
    terms = terms or Terms()
    path = places.find(model)
    if path.is_file():
        shape, tensors = gguf_file.read(path)
        return _reckon(model, terms, shape, sum(tensor.stored for tensor in tensors), 2.0, _gguf_remarks(terms))
    config = read_object(path / "config.json")
    shape, tensors = shape_of(config), tensors_in(path)
    dtype = served_in(model, terms, shape, tensors)
    if tensors:
        weights, remarks = loaded_bytes(model, terms, shape, tensors, dtype, config)
    else:
        weights, remarks = other_weights(model, path)
    kept = 1.0 if terms.kv_cache_dtype == "auto" and keeps_fp8(config) else float(dtype)
    return _reckon(model, terms, shape, weights, kept, remarks)


def _reckon(model: str, terms: Terms, shape: Shape, weights: int, kept_in: float, remarks: list[str]) -> Estimate:
    """Put it together; `kept_in` is how many bytes the cache takes for a number where the terms leave that open."""
    each = KV_DTYPES.get(terms.kv_cache_dtype) or kept_in
    context = terms.context_tokens or shape.context
    per_token = least = None
    if shape.layers is not None:
        sizes = [max(1, math.ceil(layer.heads / terms.devices)) * layer.values * each for layer in shape.layers]
        per_token = math.ceil(sum(sizes))
        if context is not None:
            windows = [min(context, layer.window or context) for layer in shape.layers]
            least = math.ceil(sum(size * window for size, window in zip(sizes, windows, strict=True)))
    if shape.context and context and context > shape.context:
        remarks.append(
            f"The model was made for {shape.context} tokens; vLLM refuses more unless it is told to allow it."
        )
    return Estimate(
        model=model,
        architecture=shape.architecture,
        terms=terms,
        context_tokens=context,
        weights_bytes=math.ceil(weights / terms.devices),
        kv_bytes_per_token=per_token,
        kv_bytes_least=least,
        overhead_bytes=_PROCESS + _STEP * shape.width * _WIDTHS * 2 + terms.concurrency * shape.vocabulary * 8,
        remarks=(*remarks, *_of_shape(shape)),
    )


def _of_shape(shape: Shape) -> list[str]:
    remarks = []
    named = shape.architecture or "of no name"
    if shape.layers is None:
        remarks.append(
            f"The files of this model ({named}) do not say how its layers keep their keys and values: "
            "the KV cache is not known, and the sum is the weights' and the overhead's alone."
        )
    elif windows := sorted({layer.window for layer in shape.layers if layer.window is not None}):
        some = sum(layer.window is not None for layer in shape.layers)
        remarks.append(
            f"{some} of {len(shape.layers)} layers look back {windows[0]} tokens at most; they are counted as if they "
            "kept all, so that long requests may need less."
        )
    if shape.states:
        remarks.append(
            f"{shape.states} of {shape.depth} layers keep a state of one size for each request, which is not counted."
        )
    if shape.layers is not None and shape.context is None:
        remarks.append("The model does not say how long a request may be: give --max-model-len.")
    return remarks


def _gguf_remarks(terms: Terms) -> list[str]:
    remarks = ["Counted for llama.cpp, which keeps the KV cache in float16 unless --cache-type-k and -v say otherwise."]
    if terms.quantization is not None or terms.dtype != "auto":
        remarks.append("A GGUF file is served as it is: --quantization and --dtype change nothing.")
    return remarks
