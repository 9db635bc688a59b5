"""A model whose weights are more than the device has is refused before anything is loaded."""

from __future__ import annotations

import json
import struct
from argparse import Namespace
from pathlib import Path

import pytest

from inferbus_worker.engines.base import EngineStartError
from inferbus_worker.engines.vllm import room

pytestmark = pytest.mark.vllm

_ARGUMENTS = Namespace(dtype="auto", quantization=None, tensor_parallel_size=1, pipeline_parallel_size=1)


def model(folder: Path, rows: int) -> str:
    """A model of one tensor of `rows` KiB, of which nothing but the header is there."""
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16"}))
    tensor = {"dtype": "BF16", "shape": [rows, 512], "data_offsets": [0, rows * 1024]}
    header = json.dumps({"model.layers.0.mlp.up_proj.weight": tensor}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + rows * 1024)  # sparse
    return str(folder)


def test_one_that_could_never_fit_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_device_memory", lambda: 10 * 2**20)
    with pytest.raises(EngineStartError, match=r"can never fit: its weights take 20 MiB .* there are 10 MiB"):
        room.check_room(model(tmp_path, 20 * 1024), _ARGUMENTS)


def test_one_that_fits_and_one_of_which_nothing_is_known_are_left_to_vllm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_device_memory", lambda: 10 * 2**20)
    room.check_room(model(tmp_path, 9 * 1024), _ARGUMENTS)
    room.check_room("organisation/not-in-the-cache", _ARGUMENTS)
    room.check_room("demo", _ARGUMENTS)


def test_the_device_s_memory_is_known() -> None:
    total = room._device_memory()
    assert total is not None
    assert total > 2**30
