"""The options with which vLLM spreads one model, as docs/fleet.md writes them, before vLLM's own parser."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support.fleet_page import vllm_options
from support.inferbus import inferbus
from support.needs import needs_module

pytestmark = pytest.mark.slow


def checked(folder: Path, lines: list[str]) -> subprocess.CompletedProcess[str]:
    needs_module("vllm")
    file = folder / "inferbus.yaml"
    file.write_text("vllm:\n" + "".join(f"  {line}\n" for line in lines))
    return inferbus("serve", "demo", "--config", str(file), "--check-config")


def test_vllm_has_every_option_and_takes_its_value(tmp_path: Path) -> None:
    run = checked(tmp_path, vllm_options())
    assert run.returncode == 0, run.stderr
    for line in vllm_options():
        assert line.partition(":")[0] in run.stdout


def test_an_option_that_it_has_not_is_found_here(tmp_path: Path) -> None:
    run = checked(tmp_path, [*vllm_options(), "tensor_parallels: 2"])
    assert run.returncode == 2
    assert "tensor-parallels" in run.stderr
