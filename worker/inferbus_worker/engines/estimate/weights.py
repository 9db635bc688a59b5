"""What a model's weights take, from the headers of its safetensors files: no weight is read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from inferbus_worker.engines.estimate.strangers import (
    MAX_JSON_BYTES,
    NoEstimateError,
    count,
    parse_object,
    read_object,
)

_INDEX: Final = "model.safetensors.index.json"
_MAX_SHARDS: Final = 10_000
_MAX_DIMENSIONS: Final = 16
#: What an engine turns into the type that it computes in; anything else stays as it is.
FLOATS: Final[Mapping[str, int]] = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_LAYER: Final = re.compile(r"(?:^|\.)layers\.(\d{1,6})\.")


class Tensor(NamedTuple):
    """One tensor of a file.

    Attributes:
        name: the file's.
        dtype: as safetensors spells it.
        elements: how many.
        dimensions: of its shape.
        stored: bytes in the file.
    """

    name: str
    dtype: str
    elements: int
    dimensions: int
    stored: int

    @property
    def layer(self) -> int | None:
        """Which layer it belongs to, where its name says so."""
        found = _LAYER.search(self.name)
        return None if found is None else int(found[1])


def tensors_in(folder: Path) -> list[Tensor]:
    """Every tensor of a model, each once; none where its weights are in another form.

    Raises:
        NoEstimateError: a file is missing, cut off, or no safetensors file.
    """
    found = {tensor.name: tensor for file in _files(folder) for tensor in _header(file)}
    return list(found.values())


def _files(folder: Path) -> list[Path]:
    if not (folder / _INDEX).is_file():
        files = sorted(file for file in folder.glob("*.safetensors") if file.is_file())  # to open a pipe waits for ever
        # Mistral's models come twice in one folder.
        return [file for file in files if not file.name.startswith("consolidated")] or files
    listed = read_object(folder / _INDEX).get("weight_map")
    names = set(listed.values()) if isinstance(listed, dict) and all(map(_is_text, listed.values())) else set()
    if not 0 < len(names) <= _MAX_SHARDS or not all(name == Path(name).name for name in names):
        raise NoEstimateError(folder, f"{folder / _INDEX} does not say which files the weights are in.")
    missing = sorted(name for name in names if not _is_there(folder / name))
    if missing:
        raise NoEstimateError(folder, f"{len(missing)} of {len(names)} files are missing in {folder}: {missing[0]}.")
    return [folder / name for name in sorted(names)]


def _is_there(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a name that no file system takes
        return False


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _header(path: Path) -> Iterator[Tensor]:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if not len("{}") <= length <= min(MAX_JSON_BYTES, size - 8):
                raise NoEstimateError(path, f"{path} is no safetensors file, or is cut off.")
            header = parse_object(file.read(length), path)
    except OSError as error:
        raise NoEstimateError(path, f"Cannot read {path}: {error.strerror or error}.") from error
    for name, entry in header.items():
        if name != "__metadata__":
            yield _tensor(path, name, entry, size - 8 - length)


def _tensor(path: Path, name: str, entry: Any, room: int) -> Tensor:
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    sizes = [count(each) for each in shape[:_MAX_DIMENSIONS]] if isinstance(shape, list) else [None]
    places = [count(each) for each in offsets] if isinstance(offsets, list) else []
    match places:
        case [int(begin), int(end)] if isinstance(dtype, str) and None not in sizes and len(sizes) == len(shape):
            pass
        case _:
            raise NoEstimateError(path, f"{path} has a tensor whose header is none: {name[:80]}.")
    if not begin <= end <= room:
        raise NoEstimateError(path, f"{path} is cut off: its tensor {name[:80]} is not all there.")
    elements = math.prod(size or 0 for size in sizes)
    if dtype in FLOATS and elements * FLOATS[dtype] != end - begin:
        raise NoEstimateError(path, f"{path} has a tensor of another size than its header says: {name[:80]}.")
    return Tensor(name, dtype, elements, len(sizes), end - begin)
