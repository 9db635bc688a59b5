"""What `inferbus doctor` finds on the worker's own machine."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from inferbus_client.fleet.checks import CheckResult
from inferbus_worker import doctor


def found(name: str, **flags: str) -> CheckResult:
    return next(result for result in doctor.machine_checks(None, flags) if result.name == name)


def test_servers_that_can_be_started_here_are_named_and_the_others_with_what_they_lack(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("TABBYAPI_HOME", raising=False)
    (tmp_path / "ollama").write_text("#!/bin/sh\n")
    (tmp_path / "ollama").chmod(0o755)
    here, _, others = found("servers").text.partition("; not ")
    assert "ollama" in here
    assert "llama.cpp (no llama-server)" in others
    assert "tabbyapi (no folder in TABBYAPI_HOME)" in others


def test_without_the_extra_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(distribution: str) -> str:
        raise PackageNotFoundError(distribution)

    monkeypatch.setattr(doctor, "version", nothing)
    assert found("remote").remedy == "For models on other servers: pip install 'inferbus-worker[remote]'."


def test_what_is_wrong_with_a_flag_is_said_of_the_flag_and_with_a_variable_of_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INFERBUS_STATE", "redis://there:port")
    of_the_variable, of_the_flag = found("serve here"), found("serve here", state="reddis://here")
    assert of_the_variable.text.startswith("INFERBUS_STATE: ")
    assert of_the_variable.remedy
    assert of_the_flag.text.startswith("state: ")
    assert "INFERBUS_STATE" not in of_the_flag.text + of_the_flag.remedy


def test_a_store_that_a_flag_names_is_said_to_be_the_flag_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFERBUS_STATE", raising=False)
    text = found("serve here", state="redis://127.0.0.1:1").text
    assert text == "without other flags and --config: state redis://127.0.0.1:1/0 (--state); the others are defaults"
