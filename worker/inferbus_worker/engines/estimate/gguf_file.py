"""A model in a GGUF file: its shape and its tensors, from the header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from inferbus_worker.engines.estimate.shape import Layer, Shape
from inferbus_worker.engines.estimate.strangers import NoEstimateError, count, first_count, word
from inferbus_worker.engines.estimate.weights import Tensor

#: Reads of a header: a vocabulary of a quarter of a million words and its merges take two million.
_MAX_READS: Final = 10_000_000
_MAX_LAYERS: Final = 10_000


def read(path: Path) -> tuple[Shape, list[Tensor]]:
    """What the header says.

    Raises:
        NoEstimateError: it is no GGUF file, is cut off, or cannot be read here.
    """
    try:
        import gguf  # noqa: PLC0415, F401 - heavy (NumPy), and may be missing
    except ImportError:
        raise NoEstimateError(
            path, "GGUF files are read with the package gguf: pip install 'inferbus-worker[estimate]'"
        ) from None
    try:
        reader = _bounded_reader(path)
        said = {name: _value(field) for name, field in reader.fields.items() if len(field.data) <= _MAX_LAYERS}
        tensors = [
            Tensor(
                each.name,
                each.tensor_type.name,
                int(each.n_elements),
                len(each.shape),
                int(each.n_bytes),
            )
            for each in reader.tensors
        ]
    except OSError as error:
        raise NoEstimateError(path, f"Cannot read {path}: {error.strerror or error}.") from error
    except Exception as error:  # whatever a stranger's bytes make of the parser
        raise NoEstimateError(path, f"{path} is no GGUF file, or is cut off.") from error
    return _shape(said), tensors


def _bounded_reader(path: Path) -> Any:
    """The package's reader, which on its own reads on behind the end of a file, for ever if the header says so."""
    from gguf import GGUFReader  # noqa: PLC0415

    class Bounded(GGUFReader):  # type: ignore[misc]  # the package is untyped for us
        reads = 0

        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            self.reads += 1
            found = super()._get(offset, dtype, count, override_order)
            if len(found) < int(count) or self.reads > _MAX_READS:
                raise EOFError
            return found

    return Bounded(path)


def _value(field: Any) -> Any:
    """A field's value where it is a number, a short text, or a list of numbers; else None."""
    kinds = [kind.name for kind in field.types]
    if kinds == ["STRING"]:
        return bytes(field.parts[field.data[0]][:1000]).decode(errors="replace")
    if "STRING" in kinds:
        return None
    values = [field.parts[place][0].item() for place in field.data]
    return values if kinds[:1] == ["ARRAY"] else values[0]


def _shape(said: Mapping[str, Any]) -> Shape:
    name = word(said.get("general.architecture"))
    own = {key.removeprefix(f"{name}."): value for key, value in said.items() if key.startswith(f"{name}.")}
    depth = first_count(own, "block_count")
    layers = None if depth is None or depth > _MAX_LAYERS else _layers(own, depth)
    states = 0
    if layers is not None:
        states = sum(not layer.heads for layer in layers)
        layers = [layer for layer in layers if layer.heads]
    return Shape(
        name,
        None if layers is None else tuple(layers),
        states=states,
        depth=depth,
        context=first_count(own, "context_length"),
        width=first_count(own, "embedding_length") or 0,
        vocabulary=first_count(own, "vocab_size") or 0,
    )


def _layers(own: Mapping[str, Any], depth: int) -> list[Layer] | None:
    """Each layer's; with no heads where it keeps a state instead. None where the header does not say."""
    latent, turned = first_count(own, "attention.kv_lora_rank"), first_count(own, "rope.dimension_count")
    if latent is not None and turned is not None:
        return [Layer(1, latent + turned)] * depth
    heads = own.get("attention.head_count")
    queries = max((count(each) or 0 for each in heads), default=0) if isinstance(heads, list) else count(heads)
    hidden = first_count(own, "embedding_length")
    size = first_count(own, "attention.key_length") or (hidden // queries if hidden and queries else None)
    listed = own.get("attention.head_count_kv", heads)
    each_one = listed if isinstance(listed, list) else [listed] * depth
    counts = [count(each) for each in each_one]
    if size is None or len(counts) != depth or None in counts:
        return None
    window = first_count(own, "attention.sliding_window")
    values = size + (first_count(own, "attention.value_length") or size)
    return [Layer(each or 0, values, window) for each in counts]
