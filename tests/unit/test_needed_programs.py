"""Programs besides Python's packages: `scripts/lib/programs.sh`, and what `scripts/demo` asks it for."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.scripts import ROOT

pytestmark = pytest.mark.slow

LIBRARY = "source {folder}/progress.sh; source {folder}/programs.sh; ensure_programs {needed}"


def _program(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


def _ensure(folder: Path, needed: str, installer: str) -> subprocess.CompletedProcess[str]:
    """`ensure_programs`, with this in the place of `apt-install`."""
    for name in ("progress.sh", "programs.sh"):
        shutil.copy(ROOT / "scripts/lib" / name, folder)
    _program(folder / "apt-install", installer)
    command = ["bash", "-euo", "pipefail", "-c", LIBRARY.format(folder=folder, needed=needed)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_what_is_missing_is_installed_each_package_once(tmp_path: Path) -> None:
    ran = _ensure(tmp_path, "bash:bash none-a:pack none-b:pack none-c:other", 'echo "asked for: $*" >&2')
    assert ran.returncode == 0
    assert ran.stderr.splitlines() == [
        "Missing: none-a none-b none-c. Trying to install: pack other",
        "asked for: pack other",
    ]


def test_where_nothing_is_missing_nothing_is_said(tmp_path: Path) -> None:
    ran = _ensure(tmp_path, "bash:bash env:coreutils", "exit 1")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_where_it_cannot_be_installed_it_says_what_to_install_on_each_system(tmp_path: Path) -> None:
    ran = _ensure(tmp_path, "none-a:debian:elsewhere none-b:clients:elsewhere none-c:same", "exit 1")
    assert ran.returncode == 1
    assert "apt-get install debian clients same\n" in ran.stderr
    assert "dnf install elsewhere same\n" in ran.stderr
    assert "brew install elsewhere same\n" in ran.stderr


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ((), ""),
        (("--workers", "1"), ""),
        (("--once", "--workers"), ""),
        (("--workers", "2"), "redis-server mosquitto"),
        (("--engine", "simulated", "--workers=3", "--once", "hello"), "redis-server mosquitto"),
        (("--workers", "2", "--broker", "mqtt://there"), "redis-server"),
        (("--broker=mqtt://there", "--workers", "2"), "redis-server"),
    ],
)
def test_the_demo_of_a_group_needs_its_servers_before_it_sets_anything_up(
    tmp_path: Path, options: Sequence[str], needed: str
) -> None:
    _demo(tmp_path)
    _program(tmp_path / "scripts/lib/programs.sh", 'ensure_programs() { echo "programs: ${*%%:*}"; }')
    ran = subprocess.run([tmp_path / "scripts/demo", *options], capture_output=True, text=True, timeout=60, check=True)
    asked = [f"programs: {needed}"] if needed else []
    assert ran.stdout.splitlines() == [*asked, "setup: worker", f"inferbus: demo {' '.join(options)}".strip()]


def test_the_demo_of_a_group_ends_where_its_servers_cannot_be_had(tmp_path: Path) -> None:
    _demo(tmp_path)
    _program(tmp_path / "scripts/lib/programs.sh", "ensure_programs() { return 1; }")
    ran = subprocess.run(
        [tmp_path / "scripts/demo", "--workers", "2"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout) == (1, "")


def _demo(folder: Path) -> None:
    """The script, with stand-ins for what it calls."""
    (folder / "scripts/lib").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/demo", folder / "scripts")
    shutil.copy(ROOT / "scripts/lib/progress.sh", folder / "scripts/lib")
    _program(folder / "scripts/setup", 'echo "setup: $*"')
    _program(folder / ".venv/bin/inferbus", 'echo "inferbus: $*"')
