"""What `inferbus estimate` says beforehand, beside what vLLM took: three models, each served in three ways."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from inferbus_worker.engines.estimate import Estimate, Terms, estimate
from inferbus_worker.engines.vllm.arguments import DEMO_PATH
from inferbus_worker.engines.vllm.engine import VllmEngine
from support.model_folders import GROUPED, LATENT, write_model

MODELS: Final = ("demo", "grouped", "latent")
#: On a CPU vLLM keeps a cache in FP8 only with one of these; without, the third way is another type of the weights.
FP8_NEEDS: Final = {"avx512f", "amx_tile"}
HAS_FP8: Final = not FP8_NEEDS.isdisjoint(Path("/proc/cpuinfo").read_text().split())
SETTINGS: Final[list[dict[str, str]]] = [
    {},
    {"dtype": "float32"},
    {"kv_cache_dtype": "fp8"} if HAS_FP8 else {"dtype": "bfloat16"},
]
CASES: Final = [(model, number) for model in MODELS for number in range(len(SETTINGS))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    larger = {"grouped": GROUPED, "latent": LATENT}
    return {"demo": DEMO_PATH} | {name: write_model(place / name, config) for name, config in larger.items()}


@pytest.fixture(scope="module")
def taken(vllm_needed: None, folders: dict[str, Path]) -> dict[tuple[str, int], dict[str, float]]:  # noqa: ARG001 - it has to be asked first
    """What vLLM took in each case. One process loads them all, which takes the time of two starts."""
    asked = "".join(json.dumps({"model": str(folders[name]), **SETTINGS[number]}) + "\n" for name, number in CASES)
    program = Path(__file__).with_name("vllm_reports.py")
    ended = subprocess.run(
        [sys.executable, program], input=asked, capture_output=True, text=True, timeout=560, check=False
    )
    assert ended.returncode == 0, ended.stderr[-5000:]
    return dict(zip(CASES, map(json.loads, ended.stdout.splitlines()), strict=True))


@pytest.mark.parametrize(("name", "number"), CASES)
def test_weights_and_kv_cache_are_within_a_tenth_of_what_vllm_took(
    name: str, number: int, folders: dict[str, Path], taken: dict[tuple[str, int], dict[str, float]]
) -> None:
    settings: dict[str, Any] = SETTINGS[number]
    said: Estimate = estimate(str(folders[name]), Terms(**settings))
    took = taken[name, number]
    assert said.weights_bytes == pytest.approx(took["weights"], rel=0.1)
    assert said.kv_bytes_per_token == pytest.approx(took["kv_per_token"], rel=0.1)
    # And as the whole cache shows it, which holds whole blocks.
    assert said.kv_bytes_per_token == pytest.approx(took["kv_cache"] / took["kv_tokens"], rel=0.1)


def test_an_engine_says_what_vllm_measured(engine: VllmEngine) -> None:
    said = estimate("demo")
    cache = engine._engine.vllm_config.cache_config
    assert said.kv_bytes_per_token is not None
    expected = said.weights_bytes + cache.kv_cache_size_tokens * said.kv_bytes_per_token
    assert engine.memory_bytes == pytest.approx(expected, rel=0.1)
