"""`inferbus estimate`: what it reckons, and that no file of a stranger's crashes it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferbus_worker.engines.estimate import NoEstimateError, Terms, estimate, fits
from inferbus_worker.engines.estimate.shape import shape_of
from support.model_folders import GROUPED, LATENT, tensors_of, write_header, write_model, write_tensors
from support.needs import needs_module

GIB: Final = 2**30


def per_token(config: Mapping[str, Any], devices: int = 1) -> int | None:
    """Numbers for one token, as a folder of that configuration says."""
    layers = shape_of(config).layers
    return None if layers is None else sum(max(1, -(-layer.heads // devices)) * layer.values for layer in layers)


@pytest.mark.parametrize(
    ("config", "numbers"),
    [
        (GROUPED, 12 * 4 * 2 * 128),
        (GROUPED | {"head_dim": None}, 12 * 4 * 2 * 64),
        (GROUPED | {"num_key_value_heads": None}, 12 * 12 * 2 * 128),
        (LATENT, 8 * (512 + 64)),
        (LATENT | {"model_type": "minicpm3"}, 8 * 12 * 2 * (128 + 64)),
        ({"n_layer": 2, "n_head": 8, "n_embd": 512, "multi_query": True}, 2 * 2 * 64),
        ({"num_hidden_layers": 2, "num_attention_heads": 8, "hidden_size": 512, "multi_query": True,
          "new_decoder_architecture": True, "num_kv_heads": 4}, 2 * 4 * 2 * 64),
        ({"text_config": GROUPED, "model_type": "some_vision"}, 12 * 4 * 2 * 128),
        (GROUPED | {"layer_types": ["linear_attention", "full_attention"] * 6}, 6 * 4 * 2 * 128),
        (GROUPED | {"full_attention_interval": 4}, 3 * 4 * 2 * 128),
        (GROUPED | {"num_hidden_layers": 4, "hybrid_override_pattern": "M-*M"}, 1 * 4 * 2 * 128),
        (GROUPED | {"num_kv_shared_layers": 2}, 10 * 4 * 2 * 128),
        ({"model_type": "mamba", "num_hidden_layers": 4, "hidden_size": 512}, 0),
        ({"architectures": ["Nobody"]}, None),
        ({}, None),
        (GROUPED | {"num_hidden_layers": True}, None),
        (GROUPED | {"num_hidden_layers": 10**9}, None),
        (GROUPED | {"num_hidden_layers": "12"}, None),
    ],
)  # fmt: skip
def test_the_kv_cache_is_that_of_the_layers_which_keep_one(config: dict[str, Any], numbers: int | None) -> None:
    assert per_token(config) == numbers


@pytest.mark.parametrize(
    ("config", "devices", "numbers"), [(GROUPED, 2, 12 * 2 * 256), (GROUPED, 16, 12 * 256), (LATENT, 4, 8 * 576)]
)
def test_devices_share_the_heads_but_have_one_each(config: dict[str, Any], devices: int, numbers: int) -> None:
    assert per_token(config, devices) == numbers


def test_a_window_counts_in_full_but_not_in_what_is_refused(tmp_path: Path) -> None:
    found = estimate(str(write_model(tmp_path / "m", GROUPED | {"sliding_window": 64, "sliding_window_pattern": 6})))
    assert found.kv_bytes_per_request == 4096 * 12 * 2048
    assert found.kv_bytes_least == (2 * 4096 + 10 * 64) * 2048
    assert any("10 of 12 layers look back 64 tokens" in remark for remark in found.remarks)


def test_the_demo_is_as_large_as_its_file_says() -> None:
    found = estimate("demo", Terms(dtype="bfloat16"))
    assert found.weights_bytes == pytest.approx(4_131_456, rel=0.001)
    assert found.kv_bytes_per_token == 4 * 3 * 2 * 64 * 2
    assert found.kv_bytes == 8 * 2048 * 3072


def test_the_type_and_the_quantization_change_the_weights(tmp_path: Path) -> None:
    folder = str(write_model(tmp_path / "m", GROUPED))
    plain, wide = estimate(folder), estimate(folder, Terms(dtype="float32"))
    small = estimate(folder, Terms(quantization="fp8", kv_cache_dtype="fp8"))
    assert wide.weights_bytes == 2 * plain.weights_bytes
    assert 0.5 * plain.weights_bytes < small.weights_bytes < 0.6 * plain.weights_bytes
    assert small.kv_bytes_per_token == (plain.kv_bytes_per_token or 0) // 2
    assert estimate(folder, Terms(devices=2)).weights_bytes * 2 == plain.weights_bytes
    with pytest.raises(NoEstimateError, match="awq: these files are not quantized"):
        estimate(folder, Terms(quantization="awq"))


def test_a_tied_table_and_layers_for_speculation_are_not_counted(tmp_path: Path) -> None:
    plain = estimate(str(write_model(tmp_path / "plain", GROUPED | {"tie_word_embeddings": True})))
    more = tensors_of(GROUPED) | {"model.layers.12.mlp.up_proj.weight": (9, 9), "mtp.fc.weight": (9, 9)}
    twice = estimate(str(write_model(tmp_path / "twice", GROUPED | {"tie_word_embeddings": True}, more)))
    assert twice.weights_bytes == plain.weights_bytes


def test_what_is_quantized_in_the_files_counts_as_it_is_there(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", GROUPED | {"quantization_config": {"kv_cache_scheme": {"num_bits": 8}}}, {})
    write_tensors(folder / "model.safetensors", {"a": (1000, 1000)}, "F8_E4M3")
    found = estimate(str(folder), Terms(quantization="fp8"))
    assert found.weights_bytes == 1_000_000
    assert found.kv_bytes_per_token == 12 * 4 * 2 * 128


def test_shards_are_those_of_the_index(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", GROUPED, {})
    for number, name in enumerate(("a.safetensors", "b.safetensors", "stray.safetensors")):
        write_tensors(folder / name, {f"t{number}": (1000,)})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"t0": "a.safetensors", "t1": "b.safetensors"}}))
    assert estimate(str(folder)).weights_bytes == 4000
    (folder / "b.safetensors").unlink()
    with pytest.raises(NoEstimateError, match=r"1 of 2 files are missing in .*: b\.safetensors"):
        estimate(str(folder))
    wrong: list[object] = [{"t0": "../a.safetensors"}, {"t0": "/etc/passwd"}, {"t0": 7}, {}, [], "x"]
    for names in wrong:
        index.write_text(json.dumps({"weight_map": names}))
        with pytest.raises(NoEstimateError, match="does not say which files"):
            estimate(str(folder))


def test_an_unknown_architecture_has_weights_and_says_what_it_does_not_know(tmp_path: Path) -> None:
    found = estimate(str(write_model(tmp_path / "m", {"architectures": ["Strange\x1b[31m"]}, {"a": (1000,)})))
    assert (found.weights_bytes, found.kv_bytes_per_token, found.kv_bytes) == (2000, None, None)
    assert found.requests_in(GIB) is None
    assert "the KV cache is not known" in found.remarks[0]
    assert "\x1b" not in found.remarks[0]


def test_what_could_never_fit_is_told_from_what_might(tmp_path: Path) -> None:
    found = estimate(str(write_model(tmp_path / "m", GROUPED)))
    assert not fits(found, found.weights_bytes)
    assert fits(found, found.weights_bytes + (found.kv_bytes_per_request or 0))
    assert found.requests_in(found.weights_bytes) == 0
    assert found.requests_in(found.weights_bytes + found.overhead_bytes + 3 * (found.kv_bytes_per_request or 0)) == 3


def write_index(folder: Path, name: str) -> None:
    """An index of shards that knows one of that name."""
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))


@pytest.mark.parametrize(
    "words",
    [
        {"model_type": []},
        {"model_type": {"a": 1}, **LATENT},
        {"layer_types": [{}, []] + ["full_attention"] * (GROUPED["num_hidden_layers"] - 2)},
    ],
)
def test_a_word_that_is_none_is_not_understood_and_does_no_harm(tmp_path: Path, words: dict[str, Any]) -> None:
    assert estimate(str(write_model(tmp_path / "m", {**GROUPED, **words}, {"a": (1000,)}))).weights_bytes


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", GROUPED, {"a": (1000,)})
    alone = estimate(str(folder))
    os.mkfifo(folder / "b.safetensors")  # to open it would wait until somebody writes
    assert estimate(str(folder)) == alone


def header_of(dtype: object, shape: object, offsets: object, room: int = 2) -> Callable[[Path], None]:
    """Writes a file with one tensor of that header."""
    header = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}})
    return lambda file: write_header(file, header.encode(), room)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.write_bytes(b""), "no safetensors file"),
        (lambda file: file.write_bytes(b"\xff" * 8 + b"{}"), "no safetensors file"),
        (lambda file: file.write_bytes((200_000_000).to_bytes(8, "little") + b"{}"), "no safetensors file"),
        (lambda file: write_header(file, b"[" * 100_000), "no JSON object"),
        (lambda file: write_header(file, b'{"a":' + b"9" * 5000 + b"}"), "no JSON object"),
        (lambda file: write_header(file, b'{"a": 7}'), "header is none"),
        (header_of("BF16", [1], [0, float("nan")]), "header is none"),
        (header_of("BF16", [1], [0]), "header is none"),
        (header_of("BF16", [-1], [0, 2]), "header is none"),
        (header_of("BF16", [1] * 99, [0, 2]), "header is none"),
        (header_of("BF16", [2**70], [0, 2]), "header is none"),
        (header_of([], [1], [0, 2]), "header is none"),
        (header_of("BF16", [1], [0, 2], room=0), "cut off"),
        (header_of("F32", [9], [0, 2]), "another size"),
        (lambda file: file.unlink(), "There are no weights"),
        (lambda file: (file.parent / "config.json").write_text("[" * 100_000), "no JSON object"),
        (lambda file: (file.parent / "config.json").write_bytes(b"\xff\xfe"), "no JSON object"),
        (lambda file: (file.parent / "config.json").unlink(), "no config.json"),
        (lambda file: write_index(file.parent, "x" * 5000), "1 of 1 files are missing"),
        (lambda file: write_index(file.parent, "\ud800"), "1 of 1 files are missing"),
    ],
)
def test_a_strangers_file_is_refused_in_words(tmp_path: Path, spoil: Callable[[Path], object], words: str) -> None:
    folder = write_model(tmp_path / "m", GROUPED, {"a": (1000,)})
    spoil(folder / "model.safetensors")
    with pytest.raises(NoEstimateError, match=words):
        estimate(str(folder))


@pytest.mark.parametrize(
    "name", ["", "\0", "/nowhere", "a/b/c", "x" * 5000, "no such", "../..", "nobody/nothing", "a--b"]
)
def test_no_name_of_a_model_is_more_than_an_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoEstimateError):
        estimate(name)


def test_a_gguf_file_says_what_it_takes_and_a_broken_one_that_it_is_broken(tmp_path: Path) -> None:
    needs_module("gguf")
    from support.gguf_demo import write_demo  # noqa: PLC0415 - which imports gguf

    file = tmp_path / "demo.gguf"
    write_demo(file)
    found = estimate(str(tmp_path))  # the only one in its folder
    assert found.weights_bytes == pytest.approx(2 * 4_131_456, rel=0.001)
    assert found.kv_bytes_per_token == 4 * 3 * 2 * 64 * 2
    assert estimate(str(file), Terms(kv_cache_dtype="q8_0")).kv_bytes_per_token == 3072 * 17 // 32

    good = file.read_bytes()
    endless = good[:16] + (2**62).to_bytes(8, "little") + good[24:]
    file.write_bytes(endless)
    with pytest.raises(NoEstimateError, match="is no GGUF file, or is cut off"):
        estimate(str(file))


@settings(max_examples=40)
@given(data=st.data())
def test_a_gguf_file_of_any_bytes_is_read_or_refused(data: st.DataObject, spoilt_gguf: Path) -> None:
    needs_module("gguf")
    good = (spoilt_gguf.parent / "good").read_bytes()
    head = bytearray(good[: data.draw(st.sampled_from([100, 4096, len(good)]))])
    for place in data.draw(st.lists(st.integers(4, len(head) - 1), max_size=8)):
        head[place if data.draw(st.booleans()) else place % 90] = data.draw(st.integers(0, 255))
    spoilt_gguf.write_bytes(head)
    with contextlib.suppress(NoEstimateError):
        assert estimate(str(spoilt_gguf)).weights_bytes >= 0


@pytest.fixture(scope="module")
def spoilt_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where to write one; beside it is a good one."""
    needs_module("gguf")
    from support.gguf_demo import write_demo  # noqa: PLC0415 - which imports gguf

    folder = tmp_path_factory.mktemp("gguf")
    write_demo(folder / "good")
    return folder / "spoilt.gguf"
